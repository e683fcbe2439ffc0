"""Coding agents themselves against the server: Codex, opencode and pi (slow, and needs the network and npm).

1. A scripted model runs a command, writes a file with quotes, umlauts and a closing tag of its own form in it, and
   answers with what the command said. The file is what the model wrote, and every request was answered.
2. The tools that they offer are held by a grammar.
3. Codex offers a tool of OpenAI's servers unless its configuration says otherwise, and is told so.

They carry out what the model says, without asking, so the model says no more than this.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.fakes import Running, Typist, called, running

pytestmark = [
    pytest.mark.net, pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]  # fmt: skip

PACKAGES = {
    "codex": "@openai/codex@0.171.0", "opencode": "opencode-ai@1.18.33", "pi": "@earendil-works/pi-coding-agent@0.74.2",
}  # fmt: skip
COMMANDS = {
    "codex": ["exec", "--dangerously-bypass-approvals-and-sandbox", "--skip-git-repo-check"],
    "opencode": ["run", "-m", "zaya/ZAYA1-8B"],
    "pi": ["-p", "--provider", "zaya", "--model", "ZAYA1-8B"],
}
CODEX = """
{more}
model = "ZAYA1-8B"
model_provider = "zaya"

[model_providers.zaya]
name = "zaya"
base_url = "{url}/v1"
wire_api = "responses"
"""
TASK = "Find the number and write it down."
FILE = "größe.py"
TEXT = 'x = "</parameter>"\ny = \'größe\' + "\\n"\n'


def model(prompt: str, seed: int, index: int) -> str:
    turns = prompt.rpartition(TASK)[2].count("<|im_start|>assistant\n") - 1
    has_write, has_shell = "<name>write</name>" in prompt, "<name>exec_command</name>" in prompt
    if turns == 0 and (has_write or has_shell):
        command = "pwd; echo $((3 + 4))"
        call = called("bash", {"command": command, "description": "d"}) if has_write else called(
            "exec_command", {"cmd": command}
        )  # fmt: skip
        return f"I look.\n</think>\n\nLooking.\n\n{call}"
    if turns == 1 and has_write:
        home = re.findall(r"^/.*project$", prompt, re.MULTILINE)[-1]  # one of them wants the whole path
        key = "filePath" if "<name>filePath</name>" in prompt else "path"
        return f"Now I write.\n</think>\n\n{called('write', {'content': TEXT, key: f'{home}/{FILE}'})}"
    if turns == 1 and has_shell:
        command = f"cat > {FILE} <<'EOF'\n{TEXT}EOF"
        return f"Now I write.\n</think>\n\n{called('exec_command', {'cmd': command})}"
    numbers = re.findall(r"^(\d+)$", prompt, re.MULTILINE)
    return f"Done.\n</think>\n\nThe number is {numbers[-1] if numbers else 'unknown'}."


@pytest.fixture(scope="module", params=PACKAGES)
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    home = tmp_path_factory.mktemp(request.param)
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", PACKAGES[request.param]], cwd=home, check=True, timeout=900
    )
    yield request.param, home / "node_modules" / ".bin" / request.param
    shutil.rmtree(home)


def configured(home: Path, url: str, *, more: str) -> None:
    """As docs/guides/serving.md has it."""
    options = {"npm": "@ai-sdk/openai-compatible", "name": "zaya", "options": {"baseURL": f"{url}/v1"}}
    limit = {"context": 131072, "output": 32768}
    opencode = {"provider": {"zaya": {**options, "models": {"ZAYA1-8B": {"name": "ZAYA1-8B", "limit": limit}}}}}
    sizes = {"reasoning": True, "contextWindow": 131072, "maxTokens": 32768}
    pi = {
        "baseUrl": f"{url}/v1",
        "api": "openai-completions",
        "apiKey": "none",
        "models": [{"id": "ZAYA1-8B", **sizes}],
    }
    files = {
        ".codex/config.toml": CODEX.format(url=url, more=more),
        ".config/opencode/opencode.json": json.dumps(opencode),
        ".pi/agent/models.json": json.dumps({"providers": {"zaya": pi}}),
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(text)


def run(name: str, program: Path, where: Path, server: Running, *, more: str) -> subprocess.CompletedProcess[str]:
    project = where / "project"
    project.mkdir()
    configured(where, server.url, more=more)
    env = {**os.environ, "HOME": str(where), "CODEX_HOME": str(where / ".codex"), "PWD": str(project)}
    env = {key: value for key, value in env.items() if not key.startswith("XDG_")}
    command = [program, *COMMANDS[name], TASK]
    return subprocess.run(
        command, cwd=project, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200
    )


# ----- 1, 2


def test_the_agent(agent: tuple[str, Path], tmp_path: Path) -> None:
    typist = Typist(model, context=131_072, together=5)
    with running(typist, name="ZAYA1-8B") as server:
        done = run(*agent, tmp_path, server, more='web_search = "disabled"')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The number is 7." in done.stdout
    assert (tmp_path / "project" / FILE).read_text("utf-8") == TEXT
    posts = [line for line in server.log if line["method"] == "POST"]
    assert [line["status"] for line in posts] == [200] * len(posts), posts
    with_tools = [
        request for request in typist.requests if "<tools>" in typist.tokenizer.decode(request.prompt_ids or ())
    ]
    assert len(with_tools) >= 3
    assert all(request.params.structure is not None for request in with_tools)


# ----- 3


def test_codex_is_told_what_is_wrong(agent: tuple[str, Path], tmp_path: Path) -> None:
    name, program = agent
    if name != "codex":
        pytest.skip("it has no such tools")
    with running(Typist(model, context=131_072), name="ZAYA1-8B") as server:
        done = run(name, program, tmp_path, server, more="")
    assert "turn them off in the client" in done.stdout + done.stderr
