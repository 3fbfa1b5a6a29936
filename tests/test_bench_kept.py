"""A bench says what has become slower than in the newest kept results of the same machine type."""

import json

from generalist.scripts.bench_kept import slower


def results(**sections):
    return {"sections": sections}


def ratio(what, value, cpu):
    return {"what": what, "against": "base", "ratio": value, "cpu_ratio": cpu}


def test_what_takes_a_twentieth_longer_than_the_newest_kept_result_is_said(tmp_path):
    old = results(a=[ratio("x", 9.0, 0.5), ratio("y", 1.0, 1.0)], b=[{"what": "start", "least": 2.0}])
    new = results(a=[ratio("x", 1.0, 1.0)], c=[{"what": "z", "failed": "no memory", "cpu_ratio": 1.0}])
    (tmp_path / "2026-01-01-0000-this.json").write_text(json.dumps(old))
    (tmp_path / "2026-02-01-0000-this.json").write_text(json.dumps(new | {"date": "later"}))
    (tmp_path / "2026-03-01-0000-other.json").write_text(json.dumps(results(a=[ratio("x", 0.1, 0.1)])))
    now = results(
        a=[ratio("x", 5.0, 1.04), ratio("y", 1.0, 1.06), ratio("w", 1.0, 7.0)],
        b=[{"what": "start", "least": 2.2}],
        c=[{"what": "z", "cpu_ratio": 5.0}],
    )
    now["sections"]["a seconds"] = 3.0
    assert slower(now, tmp_path, "this") == [
        "slower than in 2026-01-01-0000-this.json: y / base 1 -> 1.06",
        "slower than in 2026-01-01-0000-this.json: start 2 -> 2.2",
    ]
    assert slower(now, tmp_path, "third") == []
