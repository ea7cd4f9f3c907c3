"""The program ``jaxnorm``, which is ``python -m jaxnorm`` too; ``--help`` lists its commands."""

from jaxnorm.study.cli.entry import run


def main(command: str | None = None) -> None:
    """Runs a command and ends the process. Without the study's packages, `run` says what to install.

    Args:
        command: such as "compare"; None for the one that is named on the command line.
    """

    def program() -> int:
        from jaxnorm.study.cli.main import main as study

        return study(command)

    run(program)


if __name__ == "__main__":
    main()
