"""Install the package: `python setup.py` and older tools read the metadata of pyproject.toml through this file."""

from setuptools import setup

setup()
