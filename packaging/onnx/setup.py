"""The distribution loligo-onnx: the same package without what training needs, to score exported models.

pip install ./packaging/onnx, in a clone of loligo and an environment without the distribution loligo: both hold the
same files.
"""

import tomllib
from pathlib import Path

from setuptools import find_packages, setup

TRAINING = ("torch", "vector-quantize-pytorch", "scikit-learn", "jinja2")
"""What loligo needs, and scoring does not."""

HERE = Path(__file__).parent
with (HERE / "../../pyproject.toml").open("rb") as file:
    both = tomllib.load(file)
project, tools = both["project"], both["tool"]["setuptools"]

setup(
    name="loligo-onnx",
    version=project["version"],
    description="Score images by anomaly detectors that loligo exported, without torch",
    python_requires=project["requires-python"],
    license_expression=project["license"],
    install_requires=[
        *(need for need in project["dependencies"] if not need.startswith(TRAINING)),
        *(need for need in project["optional-dependencies"]["onnx"] if need.startswith("onnxruntime")),
    ],
    extras_require={
        "openvino": [need for need in project["optional-dependencies"]["openvino"] if need.startswith("openvino")],
        "dicom": project["optional-dependencies"]["dicom"],
        "parquet": project["optional-dependencies"]["parquet"],
    },
    packages=find_packages("../../src"),
    package_dir={"": "../../src"},
    package_data=tools["package-data"],
    entry_points={"console_scripts": [f"{name}={home}" for name, home in project["scripts"].items()]},
)
