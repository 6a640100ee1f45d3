"""Other tools read what we write and we read theirs: Minari, pandas, polars, RLlib."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import minari
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Space
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from gridray.cli import main
from gridray.datasets.dataset import OfflineDataset, write_dataset
from gridray.datasets.minari import export_minari, import_minari
from gridray.datasets.record import RecordConfig, record
from gridray.datasets.schema import to_arrays
from gridray.envs.registration import make_vector_env
from gridray.envs.rllib import offline_data_options
from gridray.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

DAYS = {"feeder": "ieee13", "step_minutes": 60, "num_days": 10, "utility": "north"}
DEPRECATIONS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> OfflineDataset:
    config = RecordConfig(task_config=DAYS, num_episodes=6, noise_std=0.2, seed=1)
    return record(config, tmp_path_factory.mktemp("exchange") / "north", use_ray=False)


def test_minari_there_and_back(
    dataset: OfflineDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "minari")  # a relative folder
    with pytest.raises(SystemExit) as left:
        main(["dataset", "to-minari", str(dataset.path), "gridray/north-v0", "--json"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 6 * 24
    theirs = minari.load_dataset("gridray/north-v0")
    assert (theirs.total_episodes, theirs.total_steps) == (6, 6 * 24)
    episode = theirs[0]
    assert np.asarray(episode.observations).shape == (25, len(dataset.card.observation_names))
    assert episode.truncations[-1]
    path = tmp_path / "minari" / "gridray" / "north-v0"
    with pytest.raises(SystemExit) as left:
        main(["dataset", "from-minari", str(path), "--out", str(tmp_path / "back")])
    assert left.value.code == 0
    back, rows = OfflineDataset.open(tmp_path / "back"), dataset.load()
    again = back.load()
    assert set(again) == set(rows)
    for name in set(rows) - {"eps_id"}:
        ours, other = (values[name][np.lexsort((values["t"], values["obs"][:, 0]))] for values in (rows, again))
        np.testing.assert_array_equal(other, ours.astype(other.dtype), err_msg=name)
    plain = [
        json.loads(json.dumps(asdict(replace(card, shards=(), versions={})))) for card in (back.card, dataset.card)
    ]
    assert plain[0] == plain[1]


def test_episode_with_a_hole_becomes_two(dataset: OfflineDataset, tmp_path: Path) -> None:
    source = dataset.card
    rows = dataset.load()
    keep = rows["t"] != 7
    holed = write_dataset(tmp_path / "holed", [{name: values[keep] for name, values in rows.items()}], source)
    made = export_minari(holed, tmp_path / "theirs", "gridray/holed-v0")
    assert [len(episode) for episode in made] == [7, 16] * 6
    assert all(episode.truncations[-1] for episode in made)


def foreign(path: Path, observation: Space[Any], action: Space[Any], actions: NDArray[Any], **metadata: Any) -> Path:
    path.mkdir(parents=True)
    storage = MinariStorage.new(path, observation, action, data_format="arrow")
    storage.update_metadata({"dataset_id": "x-v0", "minari_version": minari.__version__} | metadata)
    buffer = EpisodeBuffer(
        id=0,
        observations=np.zeros((3, 2), dtype=np.float32),
        actions=actions,
        rewards=[1.0, 2.0],
        terminations=[False, True],
        truncations=[False, False],
    )
    storage.update_episodes([buffer])
    return path


def test_foreign_dataset_is_scaled_to_ours(tmp_path: Path) -> None:
    box = Box(np.array([0.0, -4.0], dtype=np.float32), np.array([1.0, 4.0], dtype=np.float32))
    actions = np.array([[0.0, 4.0], [0.5, -2.0]], dtype=np.float32)
    path = foreign(tmp_path / "x", Box(-1.0, 1.0, (2,), np.float32), box, actions, algorithm_name="SAC")
    ours = import_minari(path, tmp_path / "ours")
    np.testing.assert_allclose(ours.load()["actions"], [[-1.0, 1.0], [0.0, -0.5]])
    assert (ours.card.policy, ours.card.task, ours.card.returns.mean) == ("SAC", "minari", 3.0)
    levels = foreign(tmp_path / "y", Box(-1.0, 1.0, (2,), np.float32), Discrete(5), np.array([3, 4]))
    np.testing.assert_allclose(import_minari(levels, tmp_path / "levels").load()["actions"], [[3.0], [4.0]])


def test_foreign_datasets_that_do_not_fit_are_refused(dataset: OfflineDataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no Minari dataset"):
        import_minari(tmp_path, tmp_path / "out")
    free = Box(-np.inf, np.inf, (2,), np.float32)
    path = foreign(tmp_path / "x", free, free, np.zeros((2, 2), dtype=np.float32))
    with pytest.raises(DatasetError, match="bounded Box"):
        import_minari(path, tmp_path / "out")
    metadata = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
    del metadata["action_space"]
    (path / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    # Minari would import and build whatever its specification names.
    with pytest.raises(DatasetError, match="has no action_space"):
        import_minari(path, tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(DatasetError, match="exists: remove it"):
        export_minari(dataset, tmp_path / "there", "a-v0")
    assert isinstance(Dict({"a": free}), Space)


def test_pandas_and_polars_read_the_folder(dataset: OfflineDataset) -> None:
    expected = dataset.load()
    frame = pl.read_parquet(dataset.path / "shards" / "**" / "*.parquet", hive_partitioning=True)
    np.testing.assert_array_equal(frame["obs"].to_numpy(), expected["obs"])
    assert set(frame["utility"].unique()) == {"north"}
    assert frame["timestamp"].dt.date().to_list() == frame["day"].to_list()
    table = pd.read_parquet(dataset.path / "shards")
    np.testing.assert_array_equal(np.stack(table["actions"]), expected["actions"])
    assert table["timestamp"].dt.tz is not None
    np.testing.assert_allclose(table.groupby("eps_id")["rewards"].sum().mean(), dataset.card.returns.mean, rtol=1e-5)


def config_of(name: str) -> AlgorithmConfig:
    config = {"bc": BCConfig, "marwil": MARWILConfig, "cql": CQLConfig, "iql": IQLConfig}[name]()
    if name in {"cql", "iql"}:
        # Their one learning rate must be unset where actor and critic have their own.
        config = config.training(lr=None)
    return config.rl_module(model_config={"fcnet_hiddens": [16], "fusionnet_hiddens": [16]}).debugging(seed=0)


def episode_of(rows: dict[str, NDArray[Any]]) -> SingleAgentEpisode:
    return SingleAgentEpisode(
        id_=str(rows["eps_id"][0]),
        observations=[*rows["obs"], rows["new_obs"][-1]],
        actions=list(rows["actions"]),
        rewards=rows["rewards"].tolist(),
        terminated=bool(rows["terminateds"][-1]),
        truncated=bool(rows["truncateds"][-1]),
        len_lookback_buffer=0,
    ).to_numpy()


@DEPRECATIONS
@pytest.mark.parametrize("name", ["bc", "marwil", "cql", "iql"])
def test_rllib_trains_on_the_same_files(dataset: OfflineDataset, name: str) -> None:
    # As RLlib's offline reader does it, but in this process: files to rows, rows to episodes, episodes to its Learner.
    # The whole way through Ray Data and its actors is test_rllib.py's.
    options = offline_data_options(dataset.files)
    columns = options["input_read_method_kwargs"]["columns"]
    table = pa.concat_tables([pq.read_table(file, columns=columns, partitioning=None) for file in options["input_"]])
    assert options["input_compress_columns"] == []
    rows = to_arrays(table)
    episodes = [
        episode_of({key: v[rows["eps_id"] == eps_id] for key, v in rows.items()}) for eps_id in set(rows["eps_id"])
    ]
    env = make_vector_env("volt_var", DAYS)
    spaces = (env.single_observation_space, env.single_action_space)
    config = config_of(name).environment(observation_space=spaces[0], action_space=spaces[1])
    names = ("default_policy", "__env__", "__env_single__")
    learner = config.build_learner(spaces=dict.fromkeys(names, spaces))
    before = {key: value.copy() for key, value in learner.module["default_policy"].get_state().items()}
    metrics = learner.update(episodes=episodes, timesteps={"num_env_steps_sampled_lifetime": 0})["default_policy"]
    losses = [float(value) for key, value in metrics.items() if key.endswith("loss")]
    assert losses
    assert np.isfinite(losses).all()
    after = learner.module["default_policy"].get_state()
    assert any((after[key] != value).any() for key, value in before.items())
