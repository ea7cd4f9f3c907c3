"""The program ``jaxnorm``, which is ``python -m jaxnorm`` too; ``--help`` lists its commands."""

from jaxnorm.study.cli.entry import run


def main(command: str | None = None) -> None:
    """Runs a command and ends the process. Without the study's packages, `run` says what to install.

    Args:
        command: such as "compare"; None takes it from the command line.
    """

    def program() -> int:
        from jaxnorm.study.cli.main import main as study

        return study(command)

    run(program)


if __name__ == "__main__":
    main()
