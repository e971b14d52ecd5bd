"""The cluster files: Ray takes them, they open nothing, and what is yours stands in one place."""

import ipaddress
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.providers import _get_default_config
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME

from study import cli
from study.cluster import DASHBOARD, MLFLOW

ROOT = Path(__file__).parents[1]
FILES = ["cluster.yaml", "cluster.local.yaml"]
AWS, LOCAL = (yaml.safe_load((ROOT / name).read_text()) for name in FILES)
CONFIGS = dict(zip(FILES, (AWS, LOCAL), strict=True))
LISTS = [
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
]
COMMANDS = [
    pytest.param(command, id=f"{name}-{kind}-{number}")
    for name, config in CONFIGS.items()
    for kind in LISTS
    for number, command in enumerate(config.get(kind) or ())
]
each = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@each
def test_ray_takes_it(config):
    """As `ray up` does: what is left out is filled in, then the whole is checked."""
    prepared = prepare_config(json.loads(json.dumps(config)))
    validate_config(prepared)
    assert prepared["available_node_types"]


@each
def test_nothing_comes_from_rays_own_defaults(config):
    """Which install another Ray, and open its dashboard to everybody."""
    defaults = _get_default_config(config["provider"])
    lists = {name for name in defaults if isinstance(defaults[name], list) or "commands" in name}
    assert lists == {*LISTS, "cluster_synced_files", "rsync_exclude", "rsync_filter"}
    assert [name for name in lists if not isinstance(config.get(name), list)] == []
    prepared = prepare_config(json.loads(json.dumps(config)))
    setup = [*config["setup_commands"], *config["worker_setup_commands"]]
    assert prepared["worker_setup_commands"] == setup
    for name in ("initialization_commands", "head_start_ray_commands"):
        assert prepared[name] == config[name]


@each
def test_what_is_sent_is_in_the_checkout(config):
    mounts = dict(config["file_mounts"])
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    assert mounts == {f"~/robust-loss-study/{path}": path for path in mounts.values()}
    sent = {path: ROOT / path for path in mounts.values()}
    assert all(path.exists() for path in sent.values())
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == {name for name, path in sent.items() if path.is_dir()}
    assert sent.keys() - packages == {"pyproject.toml", "README.md", "constraints.txt"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_read_by_the_shell_that_ray_starts(command):
    (line,) = shlex.split(_with_interactive(command)[-1])
    read = subprocess.run(["bash", "-n"], input=line, capture_output=True, text=True)
    assert (read.returncode, read.stderr) == (0, "")  # an open here-document is only told


def flags(command):
    return {word for word in shlex.split(command) if word.startswith(("-", "$"))}


def test_both_clusters_are_set_up_and_started_alike():
    same = ("file_mounts", "cluster_name", "head_setup_commands")
    lists = ("cluster_synced_files", "rsync_exclude", "rsync_filter")
    for name in (*same, *lists, "file_mounts_sync_continuously"):
        assert AWS[name] == LOCAL[name], name
    assert AWS["setup_commands"][1:] == LOCAL["setup_commands"][1:]  # the first are the settings
    start = "head_start_ray_commands"
    assert [*AWS[start][:2], *AWS[start][3:]] == [*LOCAL[start][:2], *LOCAL[start][3:]]
    aws, local = (flags(config[start][2]) for config in (AWS, LOCAL))
    assert aws - local == {"--object-manager-port=8076", "--num-cpus=0"}
    assert local - aws == {"$STUDY_HEAD"}
    start = "worker_start_ray_commands"
    assert AWS[start][0] == LOCAL[start][0]
    aws, local = (flags(config[start][1]) for config in (AWS, LOCAL))
    assert aws - local == {"--object-manager-port=8076"}
    assert local <= aws


PROGRAM = """\
#!/bin/bash
{
    printf '%s' "$(basename "$0")"
    for word in "$@"; do printf ' %s' "${word:-NOTHING}"; done
    printf '\\n'
    printf '%s\\n' "RAY_AUTH_MODE=$RAY_AUTH_MODE" "$(env | grep ^STUDY_)"
} >> "$HOME/said"
"""


@pytest.fixture
def host(tmp_path):
    """A home with programs that only say what they were called with; runs commands there."""
    for name in ("ray", "mlflow"):
        program = tmp_path / "venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(PROGRAM)
        program.chmod(0o755)

    def run(*commands):
        (tmp_path / "said").unlink(missing_ok=True)
        for command in commands:
            subprocess.run(
                ["bash", "-c", command],
                env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "RAY_HEAD_IP": "10.0.0.2"},
                check=True,
                timeout=60,
            )
        said = tmp_path / "said"
        return said.read_text().splitlines() if said.exists() else []

    return run


def settled(config):
    """The commands that write a host's settings."""
    return config["setup_commands"][:2]


@each
def test_ray_asks_for_a_token_and_shows_its_dashboard_to_the_head_alone(config, host):
    host(*settled(config))
    head = host(config["head_start_ray_commands"][0], config["head_start_ray_commands"][2])
    worker = host(*config["worker_start_ray_commands"])
    for said in (head, worker):
        calls = [line for line in said if line.startswith("ray ")]
        assert [call.split()[1] for call in calls] == ["stop", "start"]
        assert said.count("RAY_AUTH_MODE=token") == 2
    started = next(line for line in head if line.startswith("ray start ")).split()
    assert {"--head", "--port=6379", "--dashboard-host=127.0.0.1"} <= set(started)
    assert "NOTHING" not in started
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in started
    assert not [word for word in started if word.startswith("--dashboard-port")]  # Ray's own
    assert DASHBOARD == 8265
    assert "--address=10.0.0.2:6379" in " ".join(worker)
    commands = [re.sub(r"(?m)^ *#.*", "", one) for kind in LISTS for one in config[kind]]
    assert sum(one.count("ray start") for one in commands) == 2  # no other


def test_a_laboratorys_head_may_be_told_to_train_nothing(host):
    settings, rest = settled(LOCAL)
    start = LOCAL["head_start_ray_commands"][2]
    host(settings, rest)
    assert "--num-cpus=0" not in host(start)[0]
    assert 'STUDY_HEAD=""' in settings
    host(settings.replace('STUDY_HEAD=""', 'STUDY_HEAD="--num-cpus=0"'), rest)
    assert "--num-cpus=0" in host(start)[0].split()


@each
def test_a_host_has_every_setting_however_often_it_is_set_up(config, host, tmp_path):
    for _ in range(2):
        host(*settled(config))
    said = host(f". ~/study.env; {tmp_path}/venv/bin/ray")
    found = dict(line.split("=", 1) for line in said[1:])
    known = {
        name
        for option in typer.main.get_command(cli.app).commands["run"].params
        for name in ([option.envvar] if isinstance(option.envvar, str) else option.envvar or ())
    }
    assert {"STUDY_STORAGE", "STUDY_DATA", "STUDY_TRACKING_URI"} == known & found.keys()
    ours = {"STUDY_ARTIFACTS", "STUDY_DATABASE", "STUDY_HEAD"}  # of the start commands alone
    assert found.keys() - known - ours == {"RAY_AUTH_MODE"}
    assert found["STUDY_TRACKING_URI"] == f"http://127.0.0.1:{MLFLOW}"
    assert found["STUDY_DATABASE"] == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert (tmp_path / ".bashrc").read_text().count("study.env") == 2  # one line


@each
def test_mlflow_listens_to_the_head_alone(config):
    (command,) = (one for one in config["head_start_ray_commands"] if "mlflow server" in one)
    words = shlex.split(command.replace("'", "").replace('"', ""))
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--port") + 1] == str(MLFLOW)
    assert words[words.index("--backend-store-uri") + 1] == "$STUDY_DATABASE"
    assert words[words.index("--artifacts-destination") + 1] == "$STUDY_ARTIFACTS"


@each
def test_nothing_listens_to_everybody(config):
    said = json.dumps({name: value for name, value in config.items() if name != "metadata"})
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", said)) <= {
        "127.0.0.1",
        *re.findall(r"\d+\.\d+\.\d+\.\d+", json.dumps(config["provider"])),
    }


SECRETS = {
    "an access key": r"\b(AKIA|ASIA)[0-9A-Z]{12,}",
    "a private key": r"-----BEGIN",
    "a long random word": r"[A-Za-z0-9+=]{32,}",
    "a password": r"(?i)(password|passwd|secret\w*|access_key\w*|token)[\"']?\s*[:=]\s*[^\s~]",
    "a password in an address": r"://[^/\s:@]+:[^/\s@]+@",
    "an account": r"\b\d{12}\b",
    "a thing of an account": r"\b(sg|vpc|subnet|ami|i|eni)-(?!0+\b)[0-9a-f]{8,}",
    "a mail address": r"\w@\w+\.\w+",
    "a home": r"/(home|Users|root)/",
}


@pytest.mark.parametrize("name", [*FILES, "cluster-aws.yaml"])
def test_no_secret_and_no_address_of_ours_is_in_it(name):
    text = (ROOT / name).read_text()
    found = {what: match[0] for what, said in SECRETS.items() if (match := re.search(said, text))}
    assert found == {}
    for address in re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text):
        assert ipaddress.ip_address(address).is_private  # a laboratory's, or an example's


# What stands for something that only you can know.
YOURS = re.compile(
    r"\b(BUCKET|USER|HOST|NAME|REGION|YOUR\w*|TODO|FIXME|CHANGE\w*|XXX+|example)\b"
    r"|\b(sg|ami|vpc|subnet)-|\b(us|eu|ap)-\w+-\d|\b192\.168\.|\b10\.\d|…|<\w+>|\bm\d\w\.|s3://"
)


def walked(node, found):
    """All nodes below one; an alias is the node that it stands for."""
    if id(node) not in found:
        found[id(node)] = node
        for child in node.value if isinstance(node.value, list) else ():
            for one in child if isinstance(child, tuple) else (child,):
                walked(one, found)
    return found


def own_and_below(name):
    """The values under `metadata` by their names, and all nodes of the rest."""
    tree = yaml.compose((ROOT / name).read_text())
    metadata, rest = {}, {}
    for key, value in tree.value:
        if key.value == "metadata":
            metadata = {inner.value: node for inner, node in value.value}
        else:
            walked(value, rest)
    return metadata, rest


@pytest.mark.parametrize("name", FILES)
def test_what_is_yours_is_said_once_and_used_below(name):
    metadata, below = own_and_below(name)
    assert [key for key, node in metadata.items() if id(node) not in below] == []
    text = (ROOT / name).read_text()
    assert re.findall(r"^  (\w+): &(\w+) ", text, re.MULTILINE) == [(key, key) for key in metadata]


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_left_to_fill_in_below(name):
    metadata, below = own_and_below(name)
    yours = {}
    for node in metadata.values():
        walked(node, yours)
    assert any(YOURS.search(str(node.value)) for node in yours.values())
    others = [node for one, node in below.items() if one not in yours]
    values = [node.value for node in others if isinstance(node, yaml.ScalarNode)]
    assert [value for value in values if YOURS.search(value)] == []


def test_on_aws_only_what_works_costs():
    prepared = prepare_config(json.loads(json.dumps(AWS)))
    kinds = prepared["available_node_types"]
    assert prepared["head_node_type"] == "head"
    assert kinds["head"]["resources"] == {"CPU": 0}
    assert (kinds["head"]["min_workers"], kinds["head"]["max_workers"]) == (0, 0)
    workers = {name: kind for name, kind in kinds.items() if name != "head"}
    assert workers
    for kind in workers.values():
        assert kind["min_workers"] == 0
        assert 0 < kind["max_workers"] <= AWS["max_workers"] == AWS["metadata"]["workers"]
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert 0 < AWS["idle_timeout_minutes"] <= 10
    assert AWS["idle_timeout_minutes"] == AWS["metadata"]["idle_minutes"]


def test_on_aws_ray_makes_no_door_and_no_role_of_its_own():
    for kind in AWS["available_node_types"].values():
        config = kind["node_config"]
        assert config["SecurityGroupIds"] == AWS["metadata"]["security_groups"]
        assert config["IamInstanceProfile"]["Name"]
        assert config["MetadataOptions"] == {"HttpTokens": "required"}
    assert "security_group" not in AWS["provider"]


class Template(yaml.SafeLoader):
    """CloudFormation's short forms, as the functions that they stand for."""


def function(loader, tag, node):
    name = tag if tag == "Ref" else f"Fn::{tag}"
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        return {name: value.split(".", 1) if tag == "GetAtt" else value}
    return {name: loader.construct_sequence(node, deep=True)}


Template.add_multi_constructor("!", function)
STACK = yaml.load((ROOT / "cluster-aws.yaml").read_text(), Loader=Template)
RESOURCES = STACK["Resources"]


def of_type(kind):
    return {name: one for name, one in RESOURCES.items() if one["Type"].startswith(f"AWS::{kind}")}


def functions(value):
    """Every call of a function below a value."""
    if isinstance(value, list):
        return [found for one in value for found in functions(one)]
    if not isinstance(value, dict):
        return []
    called = [(name, one) for name, one in value.items() if name == "Ref" or "Fn::" in name]
    return called + functions(list(value.values()))


def test_the_stack_refers_to_nothing_that_is_not_in_it():
    known = {*STACK["Parameters"], *RESOURCES}
    called = functions(STACK)
    assert called
    for name, argument in called:
        if name == "Fn::Sub":
            named = re.findall(r"\$\{([^}]+)\}", argument)
            wanted = {one.split(".")[0] for one in named if not one.startswith("AWS::")}
        else:
            wanted = {argument if name == "Ref" else argument[0]}
        assert wanted <= known, (name, argument)
    assert {argument for name, argument in called if name == "Ref"} >= {*STACK["Parameters"]}


def test_the_stack_opens_ssh_to_your_address_and_nothing_else():
    (group,) = of_type("EC2::SecurityGroup").keys() - of_type("EC2::SecurityGroupIngress").keys()
    door = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": {"Ref": "Address"}}
    assert RESOURCES[group]["Properties"]["SecurityGroupIngress"] == [door]
    itself = {"Fn::GetAtt": [group, "GroupId"]}
    (inside,) = of_type("EC2::SecurityGroupIngress").values()
    assert inside["Properties"] == {
        "GroupId": itself,
        "IpProtocol": "-1",
        "SourceSecurityGroupId": itself,
    }
    assert STACK["Outputs"]["SecurityGroup"]["Value"] == itself
    assert json.dumps(STACK).count("CidrIp") == 1
    address = STACK["Parameters"]["Address"]
    assert "Default" not in address  # it is yours to say
    assert re.fullmatch(address["AllowedPattern"], "203.0.113.7/32")
    for not_one in ("", "anybody", "::/0", "203.0.113.7", "203.0.113.7/32 "):
        assert not re.fullmatch(address["AllowedPattern"], not_one)


def test_the_stack_keeps_the_results_to_itself():
    (bucket,) = of_type("S3::Bucket").values()
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert of_type("S3").keys() == of_type("S3::Bucket").keys()  # no policy opens it


def statements(*resources):
    """What policies allow."""
    for resource in resources:
        properties = RESOURCES[resource]["Properties"]
        inline = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
        for document in [properties.get("PolicyDocument"), *inline]:
            for statement in (document or {}).get("Statement", []):
                actions = statement["Action"]
                yield from (
                    (action, statement)
                    for action in (actions if isinstance(actions, list) else [actions])
                )


def test_the_stack_gives_the_machines_the_roles_that_the_cluster_names():
    profiles = {
        one["Properties"]["InstanceProfileName"]: one["Properties"]["Roles"]
        for one in of_type("IAM::InstanceProfile").values()
    }
    kinds = AWS["available_node_types"]
    configs = {name: kind["node_config"] for name, kind in kinds.items()}
    named = {name: config["IamInstanceProfile"]["Name"] for name, config in configs.items()}
    assert set(named.values()) == profiles.keys()
    (head,), (worker,) = profiles[named["head"]], profiles[named["gpu"]]
    assert (head["Ref"], worker["Ref"]) == ("HeadRole", "WorkerRole")
    assert not list(statements("WorkerRole"))  # starts no machines
    allowed = dict(statements("HeadRole"))
    assert {"ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances"} <= allowed.keys()
    assert not [action for action in allowed if action in ("*", "ec2:*", "iam:*", "s3:*")]
    assert allowed["iam:PassRole"]["Resource"] == {"Fn::GetAtt": ["WorkerRole", "Arn"]}
    for action in ("ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances"):
        (tags,) = allowed[action]["Condition"].values()
        assert tags == {f"ec2:ResourceTag/{TAG_RAY_CLUSTER_NAME}": AWS["cluster_name"]}
    images = [config["ImageId"] for config in configs.values()]
    readable = allowed["ssm:GetParameters"]["Resource"]["Fn::Sub"].split(":parameter")[1]
    assert all(image.startswith(f"resolve:ssm:{readable.rstrip('*')}") for image in images)
