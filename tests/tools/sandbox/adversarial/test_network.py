"""Ways out of a sandbox to listeners that the tests themselves own.

What counts is whether a listener heard anything, not what the attack says.

| attack | listener | lifted by |
|---|---|---|
| TCP, UDP, IPv4 and IPv6, to the gateway | on the gateway of an own bridge | that bridge |
| TCP to a link-local address | on a gateway in 169.254.0.0/16 | that bridge |
| TCP to a neighbour, by number and by DNS name | in a container on the bridge | that bridge |
| TCP to the host's loopback | on 127.0.0.1 | the host's network |
| abstract Unix socket | of the host | the host's network |
| looking around: interfaces, routes, sockets | | that bridge |
"""

import ipaddress
import secrets
import socket
import time

import pytest

pytestmark = pytest.mark.docker

TCP = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)
"""
UDP = """
import socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
client = socket.socket(family, socket.SOCK_DGRAM)
for _ in range(10):  # the first may go lost while a network finds its feet
    client.sendto(b"x", (sys.argv[1], int(sys.argv[2])))
    time.sleep(0.1)
"""
ABSTRACT = """
import socket, sys
socket.socket(socket.AF_UNIX).connect("\\0" + sys.argv[1])
"""
NEIGHBOUR = """
import socket
server = socket.create_server(("0.0.0.0", 4000))
print("ready", flush=True)
while True:
    server.accept()
    print("heard", flush=True)
"""
IPV6_FREEBIND = 78  # an address of a bridge that has no member yet


@pytest.fixture
def listen():
    """Call with a kind of socket and an address, number or path, to listen there."""
    opened = []

    def listen(kind, address):
        if address.startswith("\0"):
            family, address = socket.AF_UNIX, address
        else:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            address = (address, 0)
        listener = socket.socket(family, kind)
        opened.append(listener)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        listener.bind(address)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        listener.settimeout(0)
        return listener

    yield listen
    for listener in opened:
        listener.close()


def heard(listener):
    """Whether anybody came since the last time."""
    try:
        if listener.type == socket.SOCK_DGRAM:
            listener.recv(100)
        else:
            listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.fixture(scope="module")
def bridges(engine, mark):
    """Two networks without a way out, the second of link-local addresses."""
    unique = secrets.token_hex(4)
    prefix = f"fd{unique[:2]}:{unique[2:6]}:{unique[4:]}::"
    pools = {
        f"agentfarm-test-{unique}": {"Subnet": f"{prefix}/64", "Gateway": f"{prefix}1"},
        f"agentfarm-test-{unique}-local": {
            "Subnet": "169.254.77.0/24",
            "Gateway": "169.254.77.1",
        },
    }
    made = []
    try:
        for name, pool in pools.items():
            made.append(
                engine.api.create_network(
                    name,
                    driver="bridge",
                    internal=True,
                    ipam={"Driver": "default", "Config": [pool]},
                    enable_ipv6=":" in pool["Subnet"],
                    labels=mark,
                )["Id"]
            )
        yield tuple(pools)
    finally:
        deadline = time.monotonic() + 20
        for network in made:
            # Its last container may be on the way out.
            while not engine.remove_network(network) and time.monotonic() < deadline:
                time.sleep(0.05)


@pytest.fixture(scope="module")
def gateways(bridges, engine):
    """Addresses of this machine on the bridges: IPv4, IPv6, link-local."""
    found = [
        ipaddress.ip_interface(pool["Gateway"]).ip
        for name in bridges
        for pool in engine.api.inspect_network(name)["IPAM"]["Config"]
    ]
    link_local = next(address for address in found if address.is_link_local)
    found.remove(link_local)
    by_version = {address.version: str(address) for address in found}
    return {"link-local": str(link_local), 4: by_version[4], 6: by_version[6]}


@pytest.fixture(scope="module")
def connected(bridges, join, relaxed):
    """Sandboxes on the bridges."""
    return [
        relaxed(change=lambda options, name=name: join(options, name))
        for name in bridges
    ]


@pytest.mark.parametrize(
    ("kind", "code", "gateway", "bridge"),
    [
        pytest.param(socket.SOCK_STREAM, TCP, 4, 0, id="tcp-ipv4"),
        pytest.param(socket.SOCK_STREAM, TCP, 6, 0, id="tcp-ipv6"),
        pytest.param(socket.SOCK_DGRAM, UDP, 4, 0, id="udp-ipv4"),
        pytest.param(socket.SOCK_DGRAM, UDP, 6, 0, id="udp-ipv6"),
        pytest.param(socket.SOCK_STREAM, TCP, "link-local", 1, id="link-local"),
    ],
)
async def test_gateway_is_out_of_reach(
    kind, code, gateway, bridge, gateways, connected, listen, sandbox
):
    listener = listen(kind, gateways[gateway])
    address, port, *_ = listener.getsockname()
    attack = ["python3", "-c", code, address, str(port)]
    result = await sandbox.run(attack)
    assert not heard(listener)
    assert "unreachable" in result.stderr
    await connected[bridge].run(attack)
    assert heard(listener)


@pytest.fixture(scope="module")
def neighbour(bridges, engine, mark, sandbox_image):
    """A container on the first bridge that notes who comes."""
    api = engine.api
    endpoint = api.create_endpoint_config(aliases=["neighbour"])
    created = api.create_container(
        sandbox_image,
        ["python3", "-c", NEIGHBOUR],
        labels=mark,
        host_config=api.create_host_config(network_mode=bridges[0]),
        networking_config=api.create_networking_config({bridges[0]: endpoint}),
    )["Id"]
    try:
        api.start(created)
        said = api.logs(created, stream=True, follow=True)
        assert next(said) == b"ready\n"
        said.close()
        yield created
    finally:
        engine.remove_container(created)


@pytest.mark.parametrize("named", [False, True], ids=["by number", "by name"])
async def test_neighbour_is_out_of_reach(
    named, bridges, connected, engine, neighbour, sandbox
):
    seen = engine.api.inspect_container(neighbour)["NetworkSettings"]["Networks"]
    address = "neighbour" if named else seen[bridges[0]]["IPAddress"]
    before = engine.api.logs(neighbour).count(b"heard")
    attack = ["python3", "-c", TCP, address, "4000"]
    result = await sandbox.run(attack)
    assert ("gaierror" if named else "unreachable") in result.stderr
    assert engine.api.logs(neighbour).count(b"heard") == before
    assert (await connected[0].run(attack)).ok
    assert engine.api.logs(neighbour).count(b"heard") == before + 1


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_loopback_of_the_host_is_another(address, lifted, listen, sandbox):
    listener = listen(socket.SOCK_STREAM, address)
    attack = ["python3", "-c", TCP, address, str(listener.getsockname()[1])]
    result = await sandbox.run(attack)
    assert not heard(listener)
    assert "refused" in result.stderr or "Cannot assign" in result.stderr
    await lifted("host network").run(attack)
    assert heard(listener)


async def test_abstract_socket_of_the_host_is_out_of_reach(
    lifted, listen, sandbox, word
):
    listener = listen(socket.SOCK_STREAM, f"\0{word}")
    attack = ["python3", "-c", ABSTRACT, word]
    result = await sandbox.run(attack)
    assert not heard(listener)
    assert "refused" in result.stderr
    await lifted("host network").run(attack)
    assert heard(listener)


async def test_there_is_no_network_but_loopback(connected, sandbox):
    code = """
names = [line.split(":")[0].strip() for line in list(open("/proc/net/dev"))[2:]]
print(*names, "routes:", len(list(open("/proc/net/route"))) - 1)
"""
    assert (await sandbox.run(python=code)).stdout == "lo routes: 0\n"
    found = (await connected[0].run(python=code)).stdout
    assert "eth0" in found
    assert not found.endswith("routes: 0\n")
