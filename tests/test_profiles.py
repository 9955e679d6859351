"""Profiles: every value has the right type, every mistake gets an error that says what to write instead."""

import csv
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from loopback_hub import Hub

from helpers import hub, profile_tables, profiles
from helpers.profiles import ProfileError, load_profile

BUILT_IN = ("reduced", "laptop", "full")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """Each test starts without a chosen profile, in a folder of its own, and leaves the environment as it was."""
    for key in ("FINETUNING_PROFILE", *hub.OFFLINE):
        monkeypatch.setenv(key, "")  # recorded, so that monkeypatch restores it
        monkeypatch.delenv(key)
    monkeypatch.setattr(hub, "_SET_BY_US", [])
    monkeypatch.setattr(profiles, "check_hub", lambda: "")  # tests/test_hub.py is about the Hub that is not there
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def message(name):
    with pytest.raises(ProfileError) as caught:
        load_profile(name)
    return str(caught.value)


def run(code, **environment):
    """Runs code in a fresh interpreter, where no library has been imported yet."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "FINETUNING_"))}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=profiles.ROOT, env=env | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_profiles_resolve(name):
    profile = load_profile(name)
    assert profile.name == name
    assert set(profile.tables) == set(profiles.TABLES)
    for table in profile.tables.values():
        assert table.seed >= 0 and table.learning_rate < 0.1


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_hub_id_is_pinned_and_no_local_path_is(name):
    for table_name, table in load_profile(name).tables.items():
        for place, revision in (("dataset", table.revision), ("checkpoint", table.checkpoint_revision)):
            value = getattr(table, place)
            if Path(value).is_absolute():
                assert revision is None, (table_name, place)
            else:
                assert value.count("/") == 1, (table_name, place)
                assert revision and re.fullmatch("[0-9a-f]{40}", revision), (table_name, place)


def test_one_id_has_one_revision_in_all_profiles():
    revisions = {}
    for name in BUILT_IN:
        for table in load_profile(name).tables.values():
            revisions.setdefault(table.dataset, set()).add(table.revision)
            revisions.setdefault(table.checkpoint, set()).add(table.checkpoint_revision)
    assert {key: found for key, found in revisions.items() if len(found) > 1} == {}


def test_reduced_needs_nothing_but_the_project():
    profile = load_profile("reduced")
    assert profile.offline
    for table in profile.tables.values():
        for key in profiles.PLACES:
            place = getattr(table, key, None)
            assert place is None or Path(place).is_relative_to(profiles.ROOT / "data")


@pytest.mark.parametrize("name", profiles.TABLES)
def test_reduced_data_is_there_with_enough_rows(name):
    table = getattr(load_profile("reduced"), name)  # raises if a path is missing
    if table.dataset.endswith(".csv"):
        with open(table.dataset, newline="", encoding="utf-8") as file:
            splits = {"train": sum(1 for _ in csv.DictReader(file))}
    else:
        front = yaml.safe_load((Path(table.dataset) / "README.md").read_text(encoding="utf-8").split("---\n")[1])
        info = next(info for info in front["dataset_info"] if info["config_name"] == table.config)
        splits = {split["name"]: split["num_examples"] for split in info["splits"]}
    if isinstance(table, profile_tables.Classification):
        # without a split of its own, validation (and test) is taken from training
        wanted = {"train": table.max_train_samples}
        for split, rows in (("validation", table.max_eval_samples), ("test", table.max_test_samples)):
            owner = split if split in splits else "train"
            wanted[owner] = wanted.get(owner, 0) + rows
        assert {split: rows for split, rows in wanted.items() if rows > splits[split]} == {}


def test_full_is_the_published_recipe():
    imdb = load_profile("full").imdb
    assert imdb.checkpoint == "openai-community/gpt2"
    assert (imdb.max_length, imdb.per_device_train_batch_size, imdb.num_train_epochs) == (512, 8, 3)
    assert (imdb.learning_rate, imdb.weight_decay) == (2e-5, 0.01)
    assert imdb.max_train_samples + imdb.max_eval_samples == imdb.max_test_samples == 25_000


def test_laptop_differs_from_full_only_where_it_says_so():
    laptop, full = load_profile("laptop"), load_profile("full")
    assert laptop.imdb.dataset == full.imdb.dataset and laptop.imdb.revision == full.imdb.revision
    assert laptop.imdb.max_train_samples < full.imdb.max_train_samples


def test_user_file_says_only_what_differs(write):
    mine = load_profile(write('inherits = "reduced"\n[imdb]\nmax_train_samples = 200\nlearning_rate = 1\n'))
    reduced = load_profile("reduced")
    assert mine.name == "mine"
    assert (
        dataclasses.replace(
            mine.tables["imdb"],
            max_train_samples=reduced.tables["imdb"].max_train_samples,
            learning_rate=reduced.tables["imdb"].learning_rate,
        )
        == reduced.tables["imdb"]
    )
    assert mine.tables["imdb"].max_train_samples == 200
    assert mine.tables["mrpc"] == reduced.tables["mrpc"]


def test_user_file_inherits_from_another_relative_to_itself(write, tmp_path, monkeypatch):
    write('inherits = "full"\n[imdb]\nseed = 1\nmax_length = 64\n', "base.toml")
    write('inherits = "../base.toml"\n[imdb]\nseed = 2\n', "room/mine.toml")
    monkeypatch.chdir(profiles.ROOT)
    mine = load_profile(tmp_path / "room" / "mine.toml")
    assert (mine.imdb.seed, mine.imdb.max_length, mine.imdb.dataset) == (2, 64, "stanfordnlp/imdb")


def test_byte_order_mark_is_accepted(write):
    assert load_profile(write(b'\xef\xbb\xbfinherits = "full"\n')).imdb.seed == 42


def test_another_dataset_or_checkpoint_drops_the_inherited_revision(write):
    mine = load_profile(write('inherits = "full"\n[imdb]\ndataset = "me/reviews"\n[mrpc]\ncheckpoint = "me/bert"\n'))
    assert (mine.imdb.revision, mine.imdb.config) == (None, None)
    assert mine.imdb.checkpoint_revision is not None
    assert mine.mrpc.checkpoint_revision is None
    assert mine.mrpc.revision is not None


def test_data_paths_resolve_from_the_project_and_dotted_ones_from_the_file(write, tmp_path):
    path = write('inherits = "reduced"\n[imdb]\ndataset = "../reviews"\ncheckpoint = "data/models/bert"\n', "a/b.toml")
    mine = load_profile(path).tables["imdb"]
    assert Path(mine.dataset) == tmp_path / "reviews"
    assert Path(mine.checkpoint) == profiles.ROOT / "data/models/bert"


def test_variable_chooses_and_argument_wins(write, monkeypatch):
    monkeypatch.setenv("FINETUNING_PROFILE", "full")
    assert load_profile().name == "full"
    assert load_profile("laptop").name == "laptop"
    monkeypatch.setenv("FINETUNING_PROFILE", write('inherits = "full"\n', "workshop.toml"))
    assert load_profile().name == "workshop"
    monkeypatch.setenv("FINETUNING_PROFILE", "")
    assert load_profile().name == "reduced"


def test_file_is_looked_for_here_and_in_the_project(write, tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "ROOT", tmp_path)
    write('inherits = "full"\n', "workshop.toml")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert load_profile("workshop.toml").name == "workshop"


def test_unknown_profile_lists_what_exists():
    text = message("redused")
    assert "did you mean 'reduced'?" in text
    assert all(name in text for name in BUILT_IN)


def test_unknown_table_lists_what_exists(write):
    with pytest.raises(AttributeError, match=r"did you mean 'imdb'.*concepts, imdb, openwebtext, mrpc, documents"):
        load_profile("full").imbd  # noqa: B018
    assert "did you mean 'imdb'?" in message(write('inherits = "full"\n[imbd]\nseed = 1\n'))


def test_unknown_key_lists_what_exists(write):
    text = message(write('inherits = "full"\n[imdb]\nmax_lenght = 64\n'))
    assert "mine.toml, [imdb]: unknown key 'max_lenght', did you mean 'max_length'?" in text
    assert "learning_rate" in text and "block_size" not in text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('max_length = "64"', "max_length: expected a whole number, got '64'"),
        ("max_length = true", "max_length: expected a whole number, got True"),
        ("max_length = 64.5", "max_length: expected a whole number, got 64.5"),
        ("max_length = 0", "max_length: expected more than 0, got 0"),
        ("max_train_samples = -1", "max_train_samples: expected more than 0, got -1"),
        ('learning_rate = "2e-5"', "learning_rate: expected a number, got '2e-5'"),
        ("learning_rate = nan", "learning_rate: expected more than 0, got nan"),
        ("learning_rate = inf", "learning_rate: expected more than 0, got inf"),
        ("weight_decay = -0.1", "weight_decay: expected 0 or more, got -0.1"),
        ("bf16 = 1", "bf16: expected true or false, got 1"),
        ("revision = 5", "revision: expected a text in quotes, got 5"),
        ('dataset = ["a"]', "dataset: expected a text in quotes, got ['a']"),
        ('dataset = "imdb"', "dataset: expected a Hub id such as stanfordnlp/imdb, or a path"),
        ('dataset = "some/where/else"', "dataset: expected a Hub id such as stanfordnlp/imdb, or a path"),
        ('checkpoint = ""', "checkpoint: expected a Hub id"),
    ],
)
def test_wrong_values_say_what_was_expected(write, line, expected):
    text = message(write(f'inherits = "reduced"\n[imdb]\n{line}\n'))
    assert "mine.toml, [imdb]" in text and expected in text


@pytest.mark.parametrize("top", ["imdb = 3", 'offline = "yes"', "inherits = 3", "oflfine = true"])
def test_wrong_top_level(write, top):
    text = message(write(top + "\n" + ("" if top.startswith("inherits") else 'inherits = "full"\n')))
    key = top.split()[0]
    assert "mine.toml" in text and key in text


def test_a_table_that_differs_by_nothing_is_fine(write):
    assert load_profile(write('inherits = "full"\n[imdb]\n')).imdb == load_profile("full").imdb


def test_missing_directory_names_the_path_and_make_data(write, tmp_path, monkeypatch):
    profile = load_profile(
        write('inherits = "reduced"\n[imdb]\ndataset = "./reviews"\n[mrpc]\ndataset = "data/nope"\n')
    )
    with pytest.raises(ProfileError, match=re.escape(f"{tmp_path / 'reviews'} does not exist; correct the path")):
        profile.imdb  # noqa: B018
    with pytest.raises(ProfileError, match=r"\[mrpc\] dataset: .*nope does not exist; run `make data`"):
        profile.mrpc  # noqa: B018


def test_missing_and_unreadable_files(write, tmp_path, monkeypatch):
    assert "nowhere.toml: No such file" in message("nowhere.toml")
    (tmp_path / "folder.toml").mkdir()
    assert "cannot read the profile" in message("folder.toml")
    path = write('inherits = "full"\n')

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # chmod would not stop root
    assert f"cannot read the profile {path}: Permission denied" in message(path)


def test_malformed_files_name_file_and_line(write):
    text = message(write('inherits = "full"\n[imdb\n'))
    assert "mine.toml is not valid TOML" in text and "line 2" in text
    assert "mine.toml, line 2: not UTF-8" in message(write(b'inherits = "full"\ndescription = "caf\xe9"\n'))


def test_inheritance_must_be_named_known_and_acyclic(write):
    assert "say at the top what it inherits from" in message(write("[imdb]\nseed = 1\n"))
    assert "did you mean 'laptop'?" in message(write('inherits = "labtop"\n'))
    assert "missing.toml: No such file" in message(write('inherits = "missing.toml"\n'))
    write('inherits = "b.toml"\n', "a.toml")
    write('inherits = "./a.toml"\n', "b.toml")
    assert "a.toml -> b.toml -> a.toml" in message("a.toml")
    assert "me.toml -> me.toml" in message(write('inherits = "me.toml"\n', "me.toml"))


@pytest.mark.parametrize(
    "metric", ["./evil", "glue", "someone/evil", "data/metrics/../../evil", "data/metrics", "/tmp"]
)
def test_a_profile_runs_no_metric_but_ours(write, metric):
    """A metric is a program: `evaluate.load` imports what it finds there."""
    text = message(write(f'inherits = "reduced"\n[mrpc]\nmetric = "{metric}"\n'))
    assert "mine.toml, [mrpc] metric: expected a folder in data/metrics" in text and metric in text
    assert load_profile(write('inherits = "full"\n[mrpc]\nmetric = "data/metrics/glue"\n')).mrpc.metric


def test_a_metric_that_is_a_link_out_of_the_folder_is_refused(write, tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "ROOT", tmp_path)
    (tmp_path / "evil").mkdir()
    (tmp_path / "data" / "metrics").mkdir(parents=True)
    try:
        (tmp_path / "data" / "metrics" / "glue").symlink_to(tmp_path / "evil")
    except OSError:
        pytest.skip("no links on this system")
    assert "expected a folder in data/metrics" in message("reduced")


def test_a_checkpoint_that_brings_a_program_is_refused(write, tmp_path):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "config.json").write_text(
        '{"model_type": "gpt2", "auto_map": {"AutoModel": "evil.Model"}}', encoding="utf-8"
    )
    mine = load_profile(write('inherits = "reduced"\n[imdb]\ncheckpoint = "./evil"\n'))
    with pytest.raises(ProfileError, match=r"\[imdb\] checkpoint: .*evil wants to run program code of its own"):
        mine.imdb  # noqa: B018
    assert mine.mrpc


def test_every_letter_may_stand_in_a_description(write):
    for encoding in ("utf-8", "utf-8-sig"):
        mine = load_profile(write('inherits = "reduced"\ndescription = "Kurs 🎓 für Ωmega"\n'.encode(encoding)))
        assert mine.description == "Kurs 🎓 für Ωmega" and "🎓" in repr(mine)


def test_a_course_where_nothing_can_be_saved_is_named(monkeypatch):
    monkeypatch.chdir(profiles.ROOT / "notebooks")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.warns(UserWarning, match="nothing can be saved in .*notebooks, as lessons do: copy the course"):
        load_profile("reduced")


def test_profile_is_read_only():
    profile = load_profile("full")
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.name = "mine"
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.imdb.seed = 1


def test_printed_without_machine_paths(write, tmp_path):
    mine = load_profile(write('inherits = "reduced"\ndescription = "a < b"\n[imdb]\ndataset = "./reviews"\n'))
    for shown in (repr(mine), mine._repr_html_(), repr(mine.tables["imdb"]), mine.tables["imdb"]._repr_html_()):
        assert str(profiles.ROOT) not in shown and str(tmp_path) not in shown
        assert "data/models/gpt2" in shown and ".../reviews" in shown
    assert "a &lt; b" in mine._repr_html_()
    assert "imdb" in dir(mine)
    assert all(len(line) <= 80 for line in repr(mine).splitlines())


def test_offline_profile_sets_the_variables_before_the_libraries_are_imported():
    code = "from helpers.profiles import load_profile; load_profile({!r}); "
    code += "from huggingface_hub import constants; print(constants.HF_HUB_OFFLINE)"
    assert run(code.format("reduced")) == ["True"]
    with Hub() as server:
        assert run(code.format("full"), HF_ENDPOINT=server.url) == ["False"]
    assert run(code.format("reduced"), HF_HUB_OFFLINE="0") == ["False"]  # the user's choice stays


def test_online_profile_takes_back_what_an_offline_one_set(monkeypatch):
    load_profile("reduced")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setitem(sys.modules, "huggingface_hub", sys)
    with pytest.warns(UserWarning, match="restart the kernel"):
        load_profile("full")
    assert "HF_HUB_OFFLINE" not in os.environ


def test_import_is_light():
    code = "import sys; before = {*sys.modules}; import helpers.profiles; print(*({*sys.modules} - before))"
    imported = {name.split(".")[0] for name in run(code)}
    assert imported <= {*sys.stdlib_module_names, "helpers"}
    assert not imported & {"ssl", "http", "urllib3"}  # the network is looked for when it is asked
