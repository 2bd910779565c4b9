"""Serves a tiny model by llama.cpp's own HTTP server: `serve_model.py DIRECTORY NAME`.

Says `{"url": ...}` once it serves, and ends on SIGTERM.
"""

import json
import signal
import sys
from pathlib import Path

import tiny_model
import xllamacpp

SLOTS = 2


def main():
    # Before there are threads, so that the signals wait for `sigwait` in all of them.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    directory, name = Path(sys.argv[1]), sys.argv[2]
    model = directory / "tiny.gguf"
    tiny_model.write(model)

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = SLOTS
    params.n_ctx = tiny_model.CONTEXT * SLOTS
    params.warmup = False
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # More threads, or ones that spin while they wait, starve each other on a small machine.
    for cpu in params.cpuparams, params.cpuparams_batch:
        cpu.n_threads = 1
        cpu.poll = 0
    server = xllamacpp.Server(params)
    print(json.dumps({"url": server.listening_address}), flush=True)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])


if __name__ == "__main__":
    main()
