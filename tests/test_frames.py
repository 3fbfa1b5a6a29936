"""What other packages hold - frames of pandas and polars, graphs of networkx, rdkit and PyG - is read as it comes."""

import datetime
from dataclasses import dataclass

import networkx
import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.geometry.graph import EDGE, Graph
from generalist.tokenizers_mod.geometry.points import Points
from generalist.tokenizers_mod.numbers.imu import Imu
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.tables.schema import Schema
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.tables.tokens import MISSING

DAYS = [datetime.date(2024, 5, day) for day in (1, 2, 3, 4, 5)]
COLUMNS = {"load": [1.0, None, 3.0, 4.0, 5.5], "wind": [2, 3, 5, 7, 11]}


@pytest.fixture(params=["pandas", "polars"])
def frames(request):
    """The package; both take a dict of columns."""
    return pytest.importorskip(request.param)


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0)) and torch.equal(a.isnan(), b.isnan())


def test_a_frame_of_numbers_is_channels_and_its_dates_are_left_out(frames):
    series = Series(patch=2, channels=2)
    expected = series.read(np.array([[1, np.nan, 3, 4, 5.5], [2, 3, 5, 7, 11]]).T)
    assert equal(series.read(frames.DataFrame({"day": DAYS, **COLUMNS})), expected)
    assert equal(Imu(channels=2).read(frames.DataFrame(COLUMNS)), Imu(channels=2).read(expected.numpy()))
    one = Series(patch=2)
    assert equal(one.read(frames.DataFrame({"day": DAYS, "load": COLUMNS["load"]})), expected[:, 0])


def test_a_column_is_a_series(frames):
    series = Series(patch=2)
    assert equal(series.read(frames.DataFrame(COLUMNS)["wind"]), series.read([2, 3, 5, 7, 11]))
    assert equal(series.read(frames.DataFrame(COLUMNS)["load"]), series.read([1, np.nan, 3, 4, 5.5]))


def test_a_column_of_words_is_named(frames):
    with pytest.raises(UserError, match="column 'town' is neither numbers nor dates"):
        Series().read(frames.DataFrame({**COLUMNS, "town": list("abcde")}))


def test_a_schema_is_learnt_from_a_frame_as_from_its_rows(frames):
    columns = {**COLUMNS, "town": ["Oslo", "Rome", None, "Oslo", "Rome"]}
    rows = [{name: values[i] for name, values in columns.items()} for i in range(5)]
    assert Schema.learn(frames.DataFrame(columns)) == Schema.learn(rows)
    assert [c.kind for c in Schema.learn(rows).columns] == ["numeric", "numeric", "categorical"]


def test_rows_of_a_frame_are_rows(frames):
    columns = {**COLUMNS, "town": ["Oslo", "Rome", None, "Oslo", "Rome"]}
    frame = frames.DataFrame(columns)
    table = Table(schemas={"t": Schema.learn(frame)})
    own = [frame[i] for i in range(5)] if frames.__name__ == "polars" else [row for _, row in frame.iterrows()]
    for i, row in enumerate(own):
        found, expected = table.read(row), table.read({name: values[i] for name, values in columns.items()})
        assert all(torch.equal(found[key], value) for key, value in expected.items())
        assert table.show(row)["row"].keys() == columns.keys()
    assert table.read(own[2])["category"].tolist()[2] == MISSING


def test_several_rows_where_one_is_wanted_are_refused():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(COLUMNS)
    with pytest.raises(UserError, match=r"5 rows where one is wanted.*frame\.row"):
        Table(schemas={"t": Schema.learn(frame)}).read(frame)


def test_points_come_from_a_frame(frames):
    cloud = np.random.default_rng(0).random((7, 3))
    frame = frames.DataFrame({name: cloud[:, i] for i, name in enumerate("xyz")})
    assert torch.equal(Points().read(frame), Points().read(cloud))


@dataclass
class Data:
    """Has the attributes of a PyTorch Geometric `Data` object."""

    x: torch.Tensor | None = None
    edge_index: torch.Tensor | None = None
    edge_attr: torch.Tensor | None = None
    num_nodes: int | None = None


def test_an_object_with_x_and_an_edge_index_reads_like_pyg():
    ends = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    graph = Graph(node_values=2, edge_columns=[4])
    raw = graph.read(Data(torch.tensor([[0.5, 1], [2, 3], [5, 7]]), ends, torch.tensor([[3], [3], [1], [1]])))
    assert raw.value.tolist() == [[0.5, 1], [2, 3], [5, 7]] and raw.edge.tolist() == [[0, 1], [1, 2]]
    assert raw.edge_code.tolist() == [[3], [1]]
    assert Graph(node_columns=[9]).read(Data(torch.tensor([[4], [2], [8]]), ends)).code.tolist() == [[4], [2], [8]]
    assert len(Graph().read(Data(None, ends, None, num_nodes=5)).code) == 5
    with pytest.raises(UserError, match="names node 9"):
        Graph().read(Data(None, torch.tensor([[0], [9]]), None, num_nodes=5))


def test_the_same_graph_of_networkx_pyg_and_lists_gives_the_same_tokens():
    net = networkx.karate_club_graph()
    edges = np.array(net.edges())
    graph = Graph(identifiers=4)
    bare = networkx.Graph()
    bare.add_nodes_from(net.nodes)
    bare.add_edges_from(net.edges)
    spans = [
        graph.span(graph.read(raw))
        for raw in (
            bare,
            {"edges": edges, "node_count": 34},
            Data(None, torch.tensor(edges.T), None, num_nodes=34),
            Data(None, torch.tensor(np.concatenate([edges.T, edges.T[::-1]], axis=1)), None, num_nodes=34),
        )
    ]
    assert spans[0].length == 34 + 78
    for other in spans[1:]:
        assert all(torch.equal(other.data[key], value) for key, value in spans[0].data.items())


def test_directed_networkx_graphs_keep_both_ways():
    net = networkx.DiGraph([(0, 1), (1, 0), (1, 2)])
    assert Graph(directed=True).span(Graph(directed=True).read(net)).length == 6
    assert Graph().span(Graph().read(net)).length == 5


def test_a_smiles_string_is_the_graph_of_its_molecule():
    pytest.importorskip("rdkit")
    from rdkit import Chem

    text = "CC(=O)Oc1ccccc1C(=O)O"  # aspirin
    molecule = Chem.MolFromSmiles(text)
    graph = Graph()
    graph.learn_rows("m", [text, "CCN"])
    raw = graph.read(text)
    assert raw.code[:, 0].tolist() == [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    ends = {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in molecule.GetBonds()}
    assert {tuple(e) for e in raw.edge.tolist()} == ends
    span = graph.span(raw)
    assert span.length == 13 + 13 and int((span.data["type"] == EDGE).sum()) == 13
    assert graph.build(8)(span.data).isfinite().all()
