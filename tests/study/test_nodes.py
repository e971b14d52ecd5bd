"""A cluster's machines, on a real Ray of several raylets: who sees, who comes, who has died."""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray._raylet import Config
from ray.autoscaler._private.util import prepare_config
from ray.exceptions import ActorUnavailableError, NodeDiedError, RayActorError

from study import nodes as nodes_module
from study.deaths import NOTICED, Death
from study.nodes import nodes_to_come

ROOT = Path(__file__).parents[2]
# Of one of AWS's machines, as Ray looks it up.
GPU_NODE = {"CPU": 8, "memory": 24051816857, "GPU": 1, "accelerator_type:L4": 1}


def bootstrap(name, **keys):
    """What `ray up` leaves on the head of one of our clusters."""
    config = prepare_config(yaml.safe_load((ROOT / name).read_text()))
    for kind in config["available_node_types"].values():
        if not kind["resources"] and name == "cluster.yaml":
            kind["resources"] = GPU_NODE
    return json.dumps({**config, **keys})


@pytest.fixture
def left(monkeypatch, tmp_path):
    """Leaves a cluster's configuration on this machine, as on a head."""
    monkeypatch.setattr(nodes_module, "BOOTSTRAP", tmp_path / "ray_bootstrap_config.yaml")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    return nodes_module.BOOTSTRAP.write_text


def test_all_workers_of_the_aws_cluster_are_to_come_and_no_head(left):
    left(bootstrap("cluster.yaml"))
    assert nodes_to_come() == [GPU_NODE] * 4


def test_what_hosts_of_a_laboratory_have_is_not_known_before_they_come(left):
    left(bootstrap("cluster.local.yaml"))
    assert nodes_to_come() == [{}] * 2


def test_none_are_to_come_where_no_autoscaler_is(left, monkeypatch):
    assert nodes_to_come() == []
    left(bootstrap("cluster.yaml"))
    monkeypatch.delenv("RAY_ADDRESS")  # a Ray of our own
    assert nodes_to_come() == []


def test_a_death_is_waited_for_as_long_as_ray_takes_to_notice_it():
    """Ray's own defaults, in milliseconds."""
    looks = Config.health_check_failure_threshold() * Config.health_check_period_ms()
    assert looks / 1000 < NOTICED < 2 * looks / 1000


@pytest.mark.parametrize(
    ("error", "own"),
    [
        (RayActorError(), True),
        (RayActorError(preempted=True), False),
        (RayActorError(preempted=True, actor_init_failed=True), True),
        (ActorUnavailableError("no answer", None), False),
        (NodeDiedError("gone"), False),
        (ValueError("of what it ran"), True),
        (None, True),
    ],
    ids=repr,
)
def test_whose_a_death_is(error, own):
    death = Death(["a"], error)
    assert death.is_own({"stands"}) == own
    death.node = "stands"
    assert death.is_own({"stands"}) == own
    death.node = "is gone"
    unlike = type(error) is RayActorError and not error.actor_init_failed
    assert death.is_own({"stands"}) == (own and not unlike)


CLUSTER = """
import contextlib, dataclasses, faulthandler, json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import ray
from ray._private import state
from ray.autoscaler._private import node_provider_availability_tracker as availability
from ray.cluster_utils import Cluster
from ray.exceptions import RayActorError
from ray.experimental.internal_kv import _internal_kv_put

from study import deaths, launch, nodes
from study import news as news_module
from study.files import read_study
from study.gpus import gpus
from study.launch import _check_room, on_ray
from study.plan import make_plan
from study.session import session
from study.site import Site
from study.spec import Resources
from trainables.errors import NoRoom, NotShared
from trainables.store import Store

faulthandler.dump_traceback_later(200, exit=True)
folder, found = Path(sys.argv[1]), {}
config = json.loads((folder / "aws.json").read_text())
store, unseen = Store(str(folder / "store")), Store("memory://unseen")
# A machine is noticed to be gone within a second, not 15.
fast = {"initial_delay": 500, "period": 200, "timeout": 1000}
fast = {f"health_check_{name}_ms": value for name, value in fast.items()}
cluster = Cluster(
    initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": fast}
)
deaths.NOTICED = 3.0
launch._job.__defaults__ = (0.5,)  # seconds between two reports


def add(address):
    with contextlib.chdir(folder):  # which outlives sessions' folders, as a machine's does
        return cluster.add_node(num_cpus=1, node_ip_address=address)


def remove(node):
    cluster.remove_node(node, allow_graceful=False)


def await_nodes(count):
    while len(nodes.nodes()) != count:
        time.sleep(0.1)


def told(error, ask):
    try:
        ask()
    except error as raised:
        return str(raised)


def left_in(store):
    return [path for path in store.files() if path.endswith(".tmp")]


def least(workers):
    gpu = config["available_node_types"]["gpu"]
    nodes.BOOTSTRAP.write_text(
        json.dumps({**config, "available_node_types": {"gpu": {**gpu, "min_workers": workers}}})
    )


one = add("127.0.0.2")
os.environ["RAY_ADDRESS"] = cluster.address
with session(Resources()) as news:
    # A worker that `ray up` is setting up.
    said = []
    least(2)

    def set_up(line):
        global two
        said.append(line)
        two = add("127.0.0.3")

    nodes.await_workers(set_up)
    found["awaited"] = said, len(nodes.nodes())
    least(9)
    found["age"], nodes.SET_UP_SECONDS = nodes._age(), 0.0
    nodes.await_workers(said.append)
    nodes.BOOTSTRAP.unlink()
    nodes.SET_UP_SECONDS = 600.0
    nodes.await_workers(said.append)
    found["not awaited"] = said[1:]

    # What there is, and what may come.
    def there():
        return {
            "CPU": nodes.most("CPU"), "GPU": nodes.most("GPU"), "none": nodes.most("TPU"),
            "gpus": sorted(gpus(1), key=str), "larger": sorted(gpus(9), key=str),
            "room": [told(NoRoom, lambda: _check_room(Resources(cpu=cpu))) for cpu in (1, 8, 9)],
        }

    found["now"] = there()
    nodes.BOOTSTRAP.write_text(json.dumps(config))
    found["to come"] = there()
    address = os.environ.pop("RAY_ADDRESS")
    found["of our own"] = there()
    os.environ["RAY_ADDRESS"] = address
    nodes.BOOTSTRAP.unlink()

    # Who sees the results.
    nodes.require_shared(store)
    found["shared"] = left_in(store)

    # Who comes, and dies while it is asked.
    three, look_from, died, over = add("127.0.0.4"), nodes._look_from, [], threading.Event()
    found["news"] = [sorted(news.since_last(every=0)), list(news.since_last())]

    class Dying(BaseHTTPRequestHandler):
        def do_GET(self):
            died.append(remove(three))
            over.wait()  # no answer before then

        do_HEAD = do_GET

    server = HTTPServer(("127.0.0.1", 0), Dying)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def look(node, url, path):
        place = f"http://127.0.0.1:{server.server_port}" if node == three.node_id else url
        return look_from(node, place, path)

    nodes._look_from = look
    nodes.require_shared(store)
    nodes._look_from = look_from
    over.set()
    server.shutdown()
    server.server_close()
    found["died asked"] = len(died), left_in(store)
    await_nodes(3)
    found["news"] += [list(news.since_last(every=0)), list(news.since_last(every=0))]

    # What the autoscaler says.
    monitor = Path(news_module._logs()) / "monitor.out"
    with monitor.open("a") as out:
        out.write((folder / "failed.txt").read_text())
    why = availability.UnavailableNodeInformation("Quota", "no more than 8 of them")
    record = availability.NodeAvailabilityRecord("gpu", False, time.time(), why)
    summary = dataclasses.asdict(availability.NodeAvailabilitySummary({"gpu": record}))
    status = json.dumps({"autoscaler_report": {"node_availability_summary": summary}})
    key = news_module.DEBUG_AUTOSCALING_STATUS
    for _ in range(2):
        _internal_kv_put(key, status, overwrite=True)
        found["news"].append(list(news.since_last(every=0)))
    long, news_module.LONG = news_module.LONG, 0.0
    found["news"].append(list(news.since_last(every=0)))
    news_module.LONG = long
    news.busy()
    found["news"].append(list(news.since_last(every=0)))


class Heard:
    def __init__(self, when_both_work=lambda: None):
        self.said, self.begun, self.working, self.deaths, self.excuses = [], [], set(), {}, []
        self.when_both_work = when_both_work

    def say(self, line):
        self.said.append(line)

    def started(self, trial_id):
        self.begun.append(trial_id)

    def reported(self, report):
        assert not report.done, report
        if report.trial_id not in self.working:
            self.working.add(report.trial_id)
            if len(self.working) == 2:
                self.when_both_work()

    def lost(self, trial_id, reason, details=""):
        self.deaths[trial_id] = reason, details

    def excused(self, trial_id):
        self.excuses.append(trial_id)


plan = make_plan(read_study(str(folder / "long.yaml")))
site = Site(store, "", plan.resources, (), witness="studies/long/lock.json")
heard = Heard()
nowhere = Site(unseen, "", plan.resources, ())
with on_ray(plan.resources) as ours:
    ours._news.busy()  # with what is over
    refused = told(NotShared, lambda: ours.run(plan.trials, nowhere, heard))
    found["unseen"] = refused, unseen.files(), heard.begun
    news_module.LONG = 0.0
    *_, found["idle"] = ours._news.since_last(every=0)
    news_module.LONG = long
    found["no witness"] = told(NotShared, lambda: ours.run(plan.trials[:1], site, heard))
    found["no witness heard"] = len(heard.working), heard.excuses


def kill():
    (worker,) = [
        actor["Pid"]
        for actor in state.actors().values()
        if actor["State"] == "ALIVE" and actor["Address"]["NodeID"] == one.node_id
    ]
    os.kill(worker, signal.SIGKILL)
    remove(two)
    late = deaths.Death(["late"], RayActorError(), node=two.node_id)
    found["late"] = [death.trial_ids for death in deaths.with_their_machine([late])]
    noticed, deaths.NOTICED = deaths.NOTICED, 1e9  # if it waited, this would not end
    here = ray.get_runtime_context().get_node_id()
    found["here"] = deaths.with_their_machine([deaths.Death(["here"], RayActorError(), node=here)])
    deaths.NOTICED = noticed


store.put(site.witness, b"{}")
heard = Heard(kill)
with on_ray(plan.resources) as ours:
    ours.run(plan.trials, site, heard)
found["deaths"] = {
    address: [trial for trial, (_, details) in heard.deaths.items() if address in details]
    for address in ("127.0.0.2", "127.0.0.3")
}
found["reasons"] = [reason for reason, _ in heard.deaths.values()]
found["excused"], found["said"] = heard.excuses, heard.said
cluster.shutdown()
print(json.dumps(found))
"""

LONG = {
    "study": "long",
    "data": {"name": "mnist5k", "subset": {"validation": 20}},
    "backbone": "lenet5",
    "seeds": 2,
    "evaluate": {"validation": 5, "test": 5},
    "training": {"epochs": 10_000},
    "methods": {"sce": {"loss": "sce"}},
    "attacks": {"pgd": {"eps": 0.04, "steps": 3}},
    "headline": {"attack": "pgd"},
    "resources": {"gpu": 0},
}

# As the autoscaler writes it, see test_setups.py.
FAILED = """\
2026-11-27 02:31:01,888\tINFO updater.py:177 -- NodeUpdater: 10.0.0.9: New status: setting-up
no such package
2026-11-27 02:31:02,888\tINFO updater.py:177 -- NodeUpdater: 10.0.0.9: New status: update-failed
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What is seen of a cluster of a head without cores and workers of one core each."""
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "long.yaml").write_text(json.dumps(LONG))
    (folder / "aws.json").write_text(bootstrap("cluster.yaml"))
    (folder / "failed.txt").write_text(FAILED)
    (folder / "cluster.py").write_text(CLUSTER)
    process = subprocess.Popen(
        [sys.executable, str(folder / "cluster.py"), str(folder)],
        env={
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "HOME": str(folder),
            "no_proxy": "*",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, errors = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):  # what a failure leaves of the cluster
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    return json.loads(said.splitlines()[-1])


def test_a_worker_that_is_being_set_up_is_waited_for(found):
    assert found["awaited"] == [["waiting for 1 machines that `ray up` is setting up"], 3]


def test_who_was_not_set_up_long_ago_or_never_will_be_is_not_waited_for(found):
    assert 0 < found["age"] < 200
    assert found["not awaited"] == []


def test_what_there_is_is_counted_on_machines_that_are_up(found):
    none = {"CPU": 2, "GPU": 0, "none": 0, "gpus": [], "larger": []}
    told = "resources.cpu: a trial asks for {} cores, the largest node has 1"
    assert found["now"] == {**none, "room": [None, told.format(8), told.format(9)]}
    assert found["of our own"] == found["now"]


def test_what_will_come_counts_as_if_it_were_there(found):
    told = "resources.cpu: a trial asks for 9 cores, the largest node with a GPU has 8"
    assert found["to come"] == {
        "CPU": 32,
        "GPU": 4,
        "none": 0,
        "gpus": ["accelerator_type:L4"],
        "larger": [],
        "room": [None, None, told],
    }


def test_a_folder_that_all_see_will_do_and_is_left_as_it_was(found):
    assert found["shared"] == []


def test_a_place_that_another_machine_does_not_see_is_refused(found):
    told, left, begun = found["unseen"]
    host, said = told.split(" ", 1)
    assert host in ("127.0.0.2", "127.0.0.3")
    assert said.startswith(
        "does not see what the driver's machine writes to memory://unseen (FileNotFoundError: "
    )
    assert "NFS" in told
    assert "`--storage` or STUDY_STORAGE" in told
    assert (left, begun) == ({}, [])


def test_who_dies_while_it_is_asked_is_passed_over(found):
    assert found["died asked"] == [1, []]


def test_machines_that_come_and_go_are_told_once(found):
    came, just_now, went, again, *_ = found["news"]
    assert just_now == again == []
    assert came == [
        "machine 127.0.0.3 has come; there are 4",
        "machine 127.0.0.4 has come; there are 4",
    ]
    assert went == ["machine 127.0.0.4 is gone; there are 3"]


def test_what_the_autoscaler_cannot_do_is_told_once(found):
    first, again, idle, busy = found["news"][4:]
    assert first == [
        "machine 10.0.0.9 could not be set up:\n  no such package",
        "no machine 'gpu': Quota, no more than 8 of them",
    ]
    assert again == busy == []
    assert idle == ["nothing could be started for 0 s: there are 3, and all wait for more"]
    assert found["idle"] == idle[0]  # again, as the next step of a run begins


def test_a_worker_that_does_not_see_the_drivers_file_ends_the_run(found):
    told = found["no witness"] or ""
    assert told.startswith(f"{platform.node()} does not see what the driver's machine writes to ")
    assert "(no studies/long/lock.json there). On more than one machine" in told
    assert "`--storage` or STUDY_STORAGE" in told
    assert "\n" not in told
    assert found["no witness heard"] == [0, []]


def test_a_worker_that_dies_just_before_its_machine_is_excused_with_it(found):
    assert found["late"] == [["late"]]


def test_nobody_asks_whether_the_drivers_own_machine_stands(found):
    assert found["here"] == []


def test_who_dies_with_its_machine_is_excused_and_who_is_killed_is_not(found):
    killed, gone = found["deaths"].values()
    assert len(killed) == len(gone) == 1
    assert killed != gone
    assert found["excused"] == gone
    assert all(reason.startswith("its worker died: ") for reason in found["reasons"])
    assert found["said"] == ["machine 127.0.0.3 is gone; there are 2"]
