"""Graphs: raw forms agree, identifiers are the reference's, bad graphs are named."""

from types import SimpleNamespace

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.geometry.graph import CENTER, EDGE, NODE, Graph, laplacian_identifiers

RING = {"nodes": [0, 1, 2, 1, 0], "edges": [[0, 1], [1, 2], [2, 3], [3, 4], [4, 0]]}


def test_a_ring_is_its_nodes_then_its_edges_each_once_whichever_way_it_is_stored():
    graph = Graph(node_columns=[3])
    span = graph.span(graph.read(RING))
    assert span.data["type"].tolist() == [NODE] * 5 + [EDGE] * 5
    assert span.data["code"][:5, 0].tolist() == [1, 2, 3, 2, 1] and not span.data["code"][5:].any()
    both = np.array(RING["edges"]).T
    both = {"nodes": RING["nodes"], "edges": np.concatenate([both, both[::-1]], axis=1)}
    again = graph.span(graph.read(both))
    for key, value in span.data.items():
        assert torch.equal(value, again.data[key])
    assert Graph(node_columns=[3], directed=True).span(graph_of(both)).length == 15


def graph_of(raw):
    return Graph(node_columns=[3], directed=True).read(raw)


def test_networkx_and_objects_with_an_edge_index_read_like_edge_lists():
    graph = Graph(node_columns=[3])
    expected = graph.span(graph.read(RING)).data
    net = networkx.Graph()
    net.add_nodes_from((f"n{i}", {"kind": k}) for i, k in enumerate(RING["nodes"]))
    net.add_edges_from((f"n{a}", f"n{b}") for a, b in RING["edges"])
    pyg = SimpleNamespace(x=torch.tensor(RING["nodes"])[:, None], edge_index=torch.tensor(RING["edges"]).T)
    for raw in (net, pyg):
        found = graph.span(graph.read(raw)).data
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_networkx_attributes_become_categories_and_values():
    net = networkx.Graph()
    net.add_nodes_from([(0, {"kind": 1, "size": 0.5}), (1, {"kind": 2, "size": 1.5})])
    net.add_edge(0, 1, weight=0.25)
    graph = Graph()
    graph.learn_rows("t", [net])
    assert (graph.node_columns, graph.node_values, graph.edge_columns, graph.edge_values) == ([3], 1, [], 1)
    span = graph.span(graph.read(net))
    assert span.data["value"].tolist()[0][0] == 0.5 and span.data["value"][2, 1] == 0.25


def test_molecules_come_from_smiles():
    pytest.importorskip("rdkit")
    graph = Graph()
    graph.learn_rows("m", ["c1ccccc1O", "CC(=O)N"])
    span = graph.span(graph.read("CCO"))  # three heavy atoms, two bonds
    assert span.length == 5 and graph.build(12)(span.data).isfinite().all()
    unseen = graph.span(graph.read("[Au]"))  # an element that training did not see is the unknown category
    assert unseen.data["code"][0, 0] == 1 + graph.node_columns[0]
    with pytest.raises(UserError, match="SMILES"):
        graph.read("this is no molecule")


def test_identifiers_span_the_reference_eigenvectors_and_their_sign_is_fixed():
    edge = np.array(RING["edges"])
    found = laplacian_identifiers(edge, 5, 7)
    assert found.shape == (5, 7) and not found[:, 5:].any()
    np.testing.assert_allclose(found[:, :5].T @ found[:, :5], np.eye(5), atol=1e-10)
    adjacency = np.zeros((5, 5))
    adjacency[edge[:, 0], edge[:, 1]] = adjacency[edge[:, 1], edge[:, 0]] = 1
    laplacian = np.eye(5) - adjacency / 2
    values = np.diag(found[:, :5].T @ laplacian @ found[:, :5])
    np.testing.assert_allclose(values, np.linalg.eigvalsh(laplacian), atol=1e-10)
    assert np.take_along_axis(found[:, :5], np.abs(found[:, :5]).round(6).argmax(0)[None], 0).min() > 0


def test_the_sparse_solver_gives_the_same_space_as_the_dense_one():
    net = networkx.random_regular_graph(3, 120, seed=1)
    edge = np.array(net.edges)
    few, all_of_them = laplacian_identifiers(edge, 120, 4), laplacian_identifiers(edge, 120, 30)
    np.testing.assert_allclose(np.abs(np.diag(few.T @ all_of_them[:, :4])), 1, atol=1e-5)


def test_training_flips_signs_of_identifiers_and_nothing_else():
    graph = Graph(node_columns=[3])
    value = graph.read(RING)
    plain, flipped = graph.span(value), graph.span(value, torch.Generator().manual_seed(3))
    assert not torch.equal(plain.data["end"], flipped.data["end"])
    assert torch.equal(plain.data["end"].abs(), flipped.data["end"].abs())
    assert torch.equal(plain.data["code"], flipped.data["code"])


def test_the_node_that_is_asked_about_has_its_own_type():
    graph = Graph(node_columns=[3])
    assert graph.span(graph.read(RING | {"center": 2})).data["type"].tolist()[:5] == [1, 1, CENTER, 1, 1]


def test_one_node_without_edges_is_one_token():
    graph = Graph(node_columns=[2])
    span = graph.span(graph.read({"nodes": [1], "edges": []}))
    assert span.length == 1 and graph.build(8)(span.data).isfinite().all()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"nodes": [], "edges": []}, "no node"),
        ({"nodes": [0, 1], "edges": [[0, 2]]}, "names node 2 of 0..1"),
        ({"nodes": [0, 1], "edges": [[0.5, 1.0]]}, "integers"),
        ({"nodes": [0, -1], "edges": []}, "category -1"),
        ({"nodes": [[0, 1]], "edges": []}, "2 columns, the model takes 1"),
        ({"nodes": [0, 1], "edges": [[0, 1]], "edge_codes": [1, 2]}, "2 rows for 1 edges"),
        ({"nodes": [0], "node_values": [np.nan], "edges": []}, "NaN"),
        ({"node": [0]}, "did you mean|nodes"),
        ({"nodes": [0], "edges": [], "center": 3}, "center 3"),
        (7, "int"),
    ],
)
def test_bad_graphs_are_named(raw, words):
    with pytest.raises(UserError, match=words) as caught:
        Graph(node_columns=[3]).read(raw)
    assert "\n" not in str(caught.value)


def test_graphs_that_are_too_large_are_refused():
    with pytest.raises(UserError, match="limits are 4"):
        Graph(node_columns=[3], max_nodes=4).read(RING)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_graph_gives_finite_tokens(data):
    n = data.draw(st.integers(1, 9))
    ends = st.integers(0, n - 1)
    edges = data.draw(st.lists(st.tuples(ends, ends), max_size=14))
    nodes = data.draw(st.lists(st.integers(0, 99), min_size=n, max_size=n))
    graph = Graph(node_columns=[5], identifiers=3)
    span = graph.span(graph.read({"nodes": nodes, "edges": edges}))
    assert graph.build(8)(span.data).isfinite().all()


def test_training_leaves_nodes_out_with_their_edges_but_never_the_asked_one():
    raw = {**RING, "node_values": np.ones((5, 2)), "center": 3}
    graph = Graph(node_columns=[3], node_values=2, drop=0.6)
    read = graph.read(raw)
    lengths = set()
    for seed in range(20):
        span = graph.span(read, torch.Generator().manual_seed(seed))
        nodes = int((span.data["type"] != EDGE).sum())
        assert (span.data["type"] == CENTER).sum() == 1
        assert span.data["code"][span.data["type"] == CENTER, 0].tolist() == [2]  # node 3 is of category 1
        assert span.length - nodes <= max(nodes - 1, 0) or nodes == 5  # what is left of a ring is paths
        lengths.add(span.length)
    assert len(lengths) > 2
    assert graph.span(read).length == 10  # nothing is dropped without a generator
    lone = Graph(node_columns=[3], drop=0.99)
    assert all(lone.span(lone.read({"nodes": [1]}), torch.Generator().manual_seed(s)).length == 1 for s in range(5))


def test_training_hides_a_share_of_the_numbers():
    graph = Graph(node_values=7, hide=0.4)
    value = graph.read({"node_values": np.ones((200, 7)), "edges": np.array([[0, 1]])})
    hidden = graph.span(value, torch.Generator().manual_seed(0)).data["value"][:200, :7]
    assert 0.35 < (hidden == 0).float().mean() < 0.45
    assert (graph.span(value).data["value"][:200, :7] == 1).all()
    with pytest.raises(UserError, match=r"hide=1\.0"):
        Graph(hide=1.0)
