import os
import subprocess
import sys
import tomllib
from pathlib import Path

import jaxnorm

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_layers_dependencies_are_among_the_requirements():
    lines = [line.strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    required = [line for line in lines if line and not line.startswith("#")]
    assert required[: len(PROJECT["dependencies"])] == PROJECT["dependencies"]
    assert len(set(required)) == len(required)


def test_the_version_is_the_packages():
    assert jaxnorm.__version__ == PROJECT["version"]


def test_every_public_name_loads():
    for name in jaxnorm.__all__:
        assert getattr(jaxnorm, name) is not None
    assert set(jaxnorm.__all__) <= set(dir(jaxnorm))


def test_the_package_its_help_and_its_report_load_no_jax():
    program = (
        "import sys, jaxnorm, jaxnorm.study.config, jaxnorm.study.cli.driver, jaxnorm.study.analysis.report\n"
        "sys.exit('jax' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0


def test_the_layers_need_nothing_but_jax_and_flax():
    program = (
        "import sys\n"
        "for name in ('optax', 'orbax', 'matplotlib', 'scipy.stats', 'sklearn', 'tyro', 'tensorflow_datasets'):\n"
        "    sys.modules.setdefault(name, None)\n"  # None makes an import of it fail
        "import jax, jaxnorm.norms as layers, jaxnorm.study.registry\n"
        "print(layers.BatchNorm(use_running_average=False).init(jax.random.key(0), jax.numpy.ones((2, 3)))['params'])"
    )
    # flax itself imports optax and orbax where it finds them, so they are only checked for our own modules.
    program = program.replace("'optax', 'orbax', ", "")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "scale" in finished.stdout, finished.stderr
