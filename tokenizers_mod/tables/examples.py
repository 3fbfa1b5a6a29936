"""Examples of rows of tables (`generalist.tokenizers_mod.base.examples`)."""

from __future__ import annotations

from generalist.tokenizers_mod.base.examples import INF, NAN, Examples
from generalist.tokenizers_mod.tables.schema import Schema

ROWS = [{"age": 3, "city": "x"}, {"age": 5.5, "city": "y"}, {"age": None, "city": "z"}]
WIDE = {"a": 1.0, "b": "x", "c": None, "d": 3}


def table() -> Examples:
    return Examples(
        {"schemas": {"t": Schema.learn(ROWS).to_json()}},
        ROWS,
        [
            ({"age": 3}, r"lacks \['city'\]"),
            ({"age": 3, "city": "x", "salary": 1}, r"no column 'salary'"),
            ({"age": "old", "city": "x"}, r"'age' holds 'old'"),
            ({"age": INF, "city": "x"}, r"finite"),
            ({"age": [3], "city": "x"}, r"one value"),
        ],
        [({"age": None, "city": None}, 2), ({"age": NAN, "city": "never seen"}, 2)],  # a missing token a column
        [({"schemas": {"t": Schema.learn([WIDE | {"c": "y"}], None).to_json()}}, WIDE, {"columns": 4})],
    )
