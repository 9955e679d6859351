"""What is carried to a machine with a GPU and no network: what it needs and lacks, in our versions."""

import zipfile

import gpu_wheels


def test_what_is_there_is_left_out_and_what_it_alone_needs_too():
    everything = gpu_wheels.closure(gpu_wheels.NEEDED, set(), "3.12")
    assert {"torch", "transformers", "datasets", "sqlalchemy", "seqeval"} <= set(everything)
    assert not any(name.startswith("nvidia") for name in everything)
    less = gpu_wheels.closure(gpu_wheels.NEEDED, gpu_wheels.THERE | {"optuna"}, "3.12")
    assert "datasets" in less and not {"torch", "optuna", "sqlalchemy"} & set(less)
    assert {name for name in less if name not in gpu_wheels.pinned()} == set()


def test_of_bitsandbytes_one_library_is_kept(tmp_path):
    path = tmp_path / "bitsandbytes-1-py3-none-any.whl"
    names = [f"bitsandbytes/libbitsandbytes_{kind}.so" for kind in ("cpu", "cuda128", "cuda130", "rocm64", "xpu2025")]
    with zipfile.ZipFile(path, "w") as wheel:
        for name in [*names, "bitsandbytes/nn.py"]:
            wheel.writestr(name, "x")
    gpu_wheels.for_one_cuda(tmp_path, "130")
    assert zipfile.ZipFile(path).namelist() == [names[0], names[2], "bitsandbytes/nn.py"]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
