"""An Engine with one container, whose state is a file in $STAND_IN_DIR/$STAND_IN_NODE. For tests only.

Plain os calls and no imports that cost time: it is started hundreds of times.
"""

# ruff: noqa: PTH103, PTH105, PTH108, PTH110, PTH118, PTH123, T201, RET503

import json
import os
import resource
import sys
import time

HERE = os.path.join(os.environ["STAND_IN_DIR"], os.environ.get("STAND_IN_NODE", "head"))
STATE = os.path.join(HERE, "container.json")
EVENTS = os.path.join(HERE, "events")


def read():
    try:
        with open(STATE) as source:
            return json.load(source)
    except FileNotFoundError:
        return None


def write(found):
    with open(STATE + ".new", "w") as out:
        json.dump(found, out)
    os.replace(STATE + ".new", STATE)


def told(name, text):
    with open(os.path.join(HERE, name), "a") as out:
        out.write(text + "\n")


def end(found, code):
    if found["State"]["Running"]:
        found["State"] = {**found["State"], "Status": "exited", "Running": False, "ExitCode": code, "Pid": 0}
        write(found)
        attributes = {**found["Config"]["Labels"], "exitCode": str(code), "name": "dspark-rank"}
        told("events", json.dumps({"Action": "die", "Actor": {"ID": found["Id"], "Attributes": attributes}}))


def fail(text):
    print(text, file=sys.stderr)
    sys.exit(1)


def need(found):
    if found is None:
        fail("Error response from daemon: No such container: dspark-rank")
    return found


def create(words):
    """An Engine has the name reserved from the first moment on, and shows the container at the end of the making."""
    takes, reserved = os.path.join(HERE, "create-takes-s"), os.path.join(HERE, "reserved")
    if read() is not None or os.path.exists(reserved):
        fail(
            'Error response from daemon: Conflict. The container name "/dspark-rank" is already in use by container "c"'
        )
    if os.path.exists(takes):
        open(reserved, "x").close()
        with open(takes) as seconds:
            time.sleep(float(seconds.read()))
        os.unlink(reserved)
    labels = {}
    for index, word in enumerate(words):
        if word == "--label":
            key, _, value = words[index + 1].partition("=")
            labels[key] = value
    image = words[words.index("--entrypoint") + 2]
    state = {"Status": "created", "Running": False, "ExitCode": 0, "Pid": 0, "OOMKilled": False}
    write(
        {
            "Id": os.urandom(32).hex(),
            "Image": image,
            "State": {**state, "StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z"},
            "Config": {"Labels": labels, "Env": ["HF_TOKEN=planted-secret-value"]},
        }
    )
    told("calls", "create " + labels["io.dspark-ops.epoch"])


def follow():
    open(EVENTS, "a").close()
    with open(EVENTS) as source:
        source.seek(0, 2)
        while os.getppid() != 1:
            line = source.readline()
            if line:
                print(line, end="", flush=True)
            else:
                time.sleep(0.05)


def main(words):
    # The Engine is another process than its caller, and has a disk of its own.
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    os.makedirs(HERE, exist_ok=True)
    if os.path.exists(os.path.join(HERE, "down")):
        fail("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
    if words[0] == "events":
        return follow()
    if words[0] == "create":
        return create(words)
    found = need(read())
    if words[0] == "start":
        if os.path.exists(os.path.join(HERE, "start-fails")):
            fail("Error response from daemon: could not select device driver")
        told("calls", "start " + found["Config"]["Labels"]["io.dspark-ops.epoch"])
        found["State"] = {**found["State"], "Status": "running", "Running": True, "Pid": 4242}
        write(found)
    elif words[0] == "stop":
        told("calls", "stop " + found["Config"]["Labels"]["io.dspark-ops.epoch"])
        end(found, 0)
    elif words[0] == "kill":
        told("calls", "kill " + found["Config"]["Labels"]["io.dspark-ops.epoch"])
        end(found, 137)
    elif words[0] == "rm":
        end(found, 137)
        os.unlink(STATE)
        told("calls", "remove " + found["Config"]["Labels"]["io.dspark-ops.epoch"])
    elif words[0] == "logs":
        print("2026-01-01T00:00:00.0Z Application startup complete.")


main(sys.argv[1:])
