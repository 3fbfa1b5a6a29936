"""torchrun for a run that may be preempted: `python -m generalist.launchers.agent` takes torchrun's own words.

On SIGTERM torchrun passes the signal on, kills its workers after 30 s whatever they are saving, and ends with a
traceback and code 1, which a scheduler takes for a failed job. Here the workers have GRACE seconds to end their step
and save, and the agent ends with 0 where all its workers did.

torchrun also lends its workers one store for the whole job, and gloo's addresses of a first try stay in it: workers
that are started again then look for the dead and fail, every time (measured, torch 2.14). Here every try has a store
of its own. Everything else is torchrun's.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from torch.distributed import run
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import SignalException, SubprocessContext
from torch.distributed.launcher import api

GRACE = 300  # seconds, the least that scripts/launch/ lets a scheduler wait
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
TIMEOUT = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"  # torch's own variable, read where --shutdown-timeout is not given


class Agent(LocalElasticAgent):
    """torchrun's agent, which remembers how its workers ended when it was asked to stop."""

    codes: tuple[int | None, ...] = ()

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: int = 30) -> None:
        super()._shutdown(death_sig, timeout)
        handlers: dict[int, Any] = (
            self._pcontext.subprocess_handlers if isinstance(self._pcontext, SubprocessContext) else {}
        )
        Agent.codes = tuple(handler.proc.returncode for handler in handlers.values())


def main(words: list[str] | None = None) -> int:
    """Exit code: torchrun's, or on SIGTERM 0 where every worker saved and ended well."""
    os.environ.setdefault(TIMEOUT, str(GRACE))
    os.environ.setdefault(OWN_STORE, "1")
    vars(api)["LocalElasticAgent"] = Agent
    try:
        run.main(words)
    except SignalException as stop:
        number = int(stop.sigval)
        if number == signal.SIGTERM and Agent.codes and not any(Agent.codes):
            return 0
        print(f"stopped by signal {number}; exit codes of the workers: {Agent.codes or 'none'}", file=sys.stderr)
        return 128 + number
    return 0


if __name__ == "__main__":
    sys.exit(main())
