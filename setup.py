"""Packages of the wheel: those of the checkout, and conf/ as grpo_gsm8k/conf. Everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["grpo_gsm8k*"]), "grpo_gsm8k.conf"],
    package_dir={"grpo_gsm8k.conf": "conf"},
)
