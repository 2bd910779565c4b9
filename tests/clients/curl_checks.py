"""`curl`, as somebody without an agent writes it."""

import json
import subprocess
import urllib.parse

from checks import expect

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


def curl_registers_a_runtime_by_hostname(fleet):
    request = {"hostname": "by-hand", "ip_address": "127.0.0.1",
               "ollama_port": _port(fleet.runtimes["by-hand"]), "ollama_version": "0.1.0"}
    status, agent = _register(fleet, "/api/agents", request)
    expect(status == 201 and agent["status"] == "online", status, agent)
    expect(set(agent["lease"]) == {"heartbeat_interval_ms", "ttl_ms"}, agent)
    status, known = _register(fleet, "/api/agents", request)
    expect(status == 200 and known["id"] == agent["id"], status, known, agent)


def curl_registers_a_runtime_by_machine_name(fleet):
    status, agent = _register(fleet, "/api/agents/register", {
        "machine_name": "by-hand", "ip_address": "127.0.0.1",
        "port": _port(fleet.runtimes["by-hand"]), "ollama_version": "0.1.0"})
    expect(status == 200 and agent["id"] == fleet.agent("by-hand")["id"], status, agent)


def curl_lists_agents(fleet):
    status, agents = _curl(f"{fleet.url}/api/agents")
    expect(status == 200 and isinstance(agents, list), status, agents)
    expect("by-hand" in [agent["machine_name"] for agent in agents], agents)


def curl_renews_a_lease(fleet):
    agent = fleet.agent("by-hand")
    status, answer = _curl("-X", "POST", f"{fleet.url}/api/agents/{agent['id']}/heartbeat")
    expect(status == 200 and answer["status"] == "online", status, answer)


def curl_is_told_that_an_agent_is_unknown(fleet):
    for arguments in (["-X", "POST", f"{fleet.url}/api/agents/{UNKNOWN_ID}/heartbeat"],
                      [f"{fleet.url}/api/agents/{UNKNOWN_ID}"],
                      ["-X", "DELETE", f"{fleet.url}/api/agents/{UNKNOWN_ID}"]):
        status, problem = _curl(*arguments)
        expect(status == 404 and problem["code"] == "unknown_agent", status, problem)


def curl_cannot_take_over_an_agent_by_its_id(fleet):
    agent = fleet.agent("one")
    status, problem = _register(fleet, "/api/agents", {
        "machine_name": "thief", "agent_id": agent["id"], "port": agent["port"]})
    expect(status == 403 and problem["code"] == "wrong_secret", status, problem)
    expect(fleet.agent("one")["epoch"] == agent["epoch"], agent)


def curl_forgets_an_agent(fleet):
    agent = fleet.agent("by-hand")
    status, _ = _curl("-X", "DELETE", f"{fleet.url}/api/agents/{agent['id']}")
    expect(status == 204, status)
    names = [agent["machine_name"] for agent in fleet.agents()]
    expect("by-hand" not in names, names)


def curl_chats(fleet):
    status, answer = _curl(f"{fleet.url}/api/chat", "-d", json.dumps({
        "model": "talker", "stream": False, "options": {"num_predict": 5},
        "messages": [{"role": "user", "content": "Why is the sky blue?"}]}))
    expect(status == 200 and answer["message"]["content"], status, answer)


def _register(fleet, path, request):
    return _curl("-X", "POST", fleet.url + path, "-H", "Content-Type: application/json",
                 "-d", json.dumps(request))


def _curl(*arguments):
    """Returns the status and the JSON of the body, or none where that is empty."""
    command = ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", *arguments]
    out = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    body, status = out.rsplit("\n", 1)
    return int(status), json.loads(body) if body else None


def _port(url):
    return urllib.parse.urlsplit(url).port


CHECKS = [
    curl_registers_a_runtime_by_hostname,
    curl_registers_a_runtime_by_machine_name,
    curl_lists_agents,
    curl_renews_a_lease,
    curl_is_told_that_an_agent_is_unknown,
    curl_cannot_take_over_an_agent_by_its_id,
    curl_forgets_an_agent,
    curl_chats,
]
