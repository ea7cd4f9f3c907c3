"""Files that others may see do not name the home directory."""

import subprocess

import pytest

from jaxnorm.study.home import hidden, typed


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    (folder / "my data").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "link"))
    return folder


def in_a_shell(command):
    """The words that a shell makes of a command line."""
    script = f"set -- {command}\nprintf '%s\\0' \"$@\""
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]


@pytest.mark.parametrize(
    "words, command",
    [
        (["{link}/x.py", "--workdir", "runs/a"], "~/x.py --workdir runs/a"),
        (["--data-dir={link}/my data"], "--data-dir ~/'my data'"),
        (["--import", "{home}/mine.py"], "--import ~/mine.py"),
        (["{link}", "{link}/"], "~ ~/"),
        (["--workdir={link}2/x", "/mnt{link}/x", "a=b"], "--workdir={link}2/x /mnt{link}/x a=b"),
        (["~/is a folder named so", "--x=~/y"], "'~/is a folder named so' '--x=~/y'"),
    ],
)
def test_a_shell_takes_the_command_for_what_was_typed(home, tmp_path, words, command):
    places = {"home": home, "link": tmp_path / "link"}
    words = [word.format(**places) for word in words]
    assert typed(words) == command.format(**places)
    before = [part for word in words for part in (word.split("=", 1) if word.startswith("--data") else [word])]
    assert in_a_shell(typed(words)) == [word.replace(str(home), str(tmp_path / "link")) for word in before]


def test_no_string_of_a_file_names_it(home, tmp_path):
    link = tmp_path / "link"
    found = hidden(
        {
            "source": f"the binary files in {link}/data, decoded copy in {home}",
            "command": f"python {link}/x.py '--data-dir={link}/my data'\npython ~/y.py",
            "earlier": [{"xla_flags": f"--xla_dump_to={link}/dump"}, 3, None],
            "elsewhere": f"{link}2/x and /mnt{link}/x",
        }
    )
    assert found == {
        "source": "the binary files in ~/data, decoded copy in ~",
        "command": "python ~/x.py --data-dir ~/'my data'\npython ~/y.py",
        "earlier": [{"xla_flags": "--xla_dump_to=~/dump"}, 3, None],
        "elsewhere": f"{link}2/x and /mnt{link}/x",
    }
    assert hidden(found) == found
    command = {"command": f"python '{link}/x"}
    assert hidden(command) == {"command": "python '~/x"}, "no shell would accept it, so there is nothing to keep"


@pytest.mark.parametrize("name", ["2", "-old", "+old", "@host", ",v", "..bak", ".d", "~"])
def test_a_folder_whose_name_begins_so_is_another(home, name):
    assert hidden(f"in {home}{name}/x") == f"in {home}{name}/x"
    assert hidden(f"in {home}, {home}; ({home}/x) and {home}.") == "in ~, ~; (~/x) and ~."


@pytest.mark.parametrize("none", ["/", "", "nowhere"])
def test_where_there_is_no_home_everything_stays(monkeypatch, none):
    monkeypatch.setenv("HOME", none)
    assert hidden("/data/x and /") == "/data/x and /"
    assert typed(["python", "/data/x"]) == "python /data/x"
