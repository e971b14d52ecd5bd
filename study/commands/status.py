"""How far a study is: status."""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape

from study.commands.options import (
    DEFAULT_STORAGE,
    Json,
    Overrides,
    Scale,
    Source,
    Storage,
    TrackingUri,
    app,
    counted,
    examples,
    is_there,
    plan_of,
    print_counts,
    tracking_of,
    working,
)
from study.files import FULL


@app.command(epilog=examples("status quickstart", "status my-study.yaml --json"))
def status(
    source: Source,
    overrides: Overrides = None,
    scale: Scale = FULL,
    storage: Storage = DEFAULT_STORAGE,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Shows what is done, running, failed (and why) and missing; changes nothing."""
    from study.ledger import last_account
    from study.status import FAILED, STATES, status_of
    from trainables.store import Store

    store, uri = Store(storage), tracking_of(tracking_uri)
    planned = plan_of(source, overrides, scale, store)
    with working(f"looking through {storage}"):
        found = status_of(planned, store, uri if is_there(uri) else None)
    if as_json:
        last = last_account(store, planned.name)
        cost = None if last is None else last.as_json()
        print(json.dumps({**found.as_json(), "last_run": cost}, indent=1))
        return
    console = Console(soft_wrap=True)
    console.print(f"{found.study}: {escape(counted(found.counts))}")
    for who in found.run_by:
        console.print(f"run by {escape(who)}")
    if not found.run_by:
        console.print("nobody runs it now")
    methods = {}
    for name in planned.methods:
        states = [trial.state for trial in found.trials if name in trial.methods]
        methods[name] = {state: states.count(state) for state in STATES}
    print_counts(console, methods)
    for told in found.searches:
        console.print(f"  search: {escape(told)}")
    for trial in found.trials:
        if trial.state == FAILED:
            console.print(f"  failed: {escape(f'{trial.name}: {trial.reason}')}")
