"""``python -m jaxnorm report WORKDIR | publish WORKDIR FOLDER | plan | doctor``: what can be done without training."""

from jaxnorm.study.cli.entry import run


def main() -> int:
    """Runs the command that is named on the command line. Without the study's packages, `run` says what to install.

    Returns:
        The exit code.
    """
    from jaxnorm.study.cli import commands

    return commands.main(__doc__)


if __name__ == "__main__":
    run(main)
