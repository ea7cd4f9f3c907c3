"""Files that others may see name neither the home directory nor other places, and no terminal obeys them."""

import subprocess

import pytest

from jaxnorm.study.home import hidden, printed, published, typed


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


@pytest.mark.parametrize(
    "text, expected",
    [
        ("/data/cifar", "..."),
        ("the binary files in /data/cifar-10-batches-bin", "the binary files in ..."),
        ("the archive /a/b c/d.tar.gz (SHA-256 1234…)", "the archive ... (SHA-256 1234…)"),
        (
            "the packed files in '/mnt/my own', decoded copy in {home}/x",
            "the packed files in '...', decoded copy in ~/x",
        ),
        ("No such file: '/secret place/x y.npz'", "No such file: '...'"),
        ('File "/opt/lab/mine.py", line 3', 'File ".../mine.py", line 3'),
        ("/one:/two;/three,(/four)", "...:...;...,(...)"),
        ("--xla_dump_to=/tmp/x --y=1/2", "--xla_dump_to=... --y=1/2"),
        ("C:\\Users\\me\\x and D:/y and \\\\server\\share", "... and ... and ..."),
        ("file:///secret/x", "..."),
        ("https://a.org/b/c and a/b, 3 / 4 and n/a", "https://a.org/b/c and a/b, 3 / 4 and n/a"),
        ("~/x, ./y, ../z and -/w", "~/x, ./y, ../z and -/w"),
    ],
)
def test_what_is_published_names_no_place(home, text, expected):
    text = text.format(home=home)
    assert published(text) == expected
    assert published({text: [text]}) == {expected: [expected]}
    assert published(published(text)) == expected


@pytest.mark.parametrize(
    "words, command",
    [
        (["/opt/x y/compare_norms.py", "--workdir", "w"], "'.../compare_norms.py' --workdir w"),
        (["/opt/x.py", "--import", "/mine/a.py", "b/c.py"], ".../x.py --import .../a.py b/c.py"),
        (["x.py", "--data-dir=/my data", "--workdir", "{home}/my data"], "x.py '--data-dir=...' --workdir ~/'my data'"),
        (["x.py", "--data-dir", "/data", "a=b"], "x.py --data-dir ... a=b"),
    ],
)
def test_a_published_command_is_still_one(home, words, command):
    found = published({"command": typed([word.format(home=home) for word in words])})["command"]
    assert found == command
    assert len(in_a_shell(found)) == len(words)


def test_no_terminal_obeys_a_text():
    text = "\x1b]0;title\x07 \x9b31m \u202eabc\x00 é ±\n\tnext"
    assert printed({"a": [text]}) == {"a": ["\\x1b]0;title\\x07 \\x9b31m \\u202eabc\\x00 é ±\n\\tnext"]}
