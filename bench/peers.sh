#!/usr/bin/env bash
# Gets the programs that the proxy is measured beside: nginx and haproxy from Debian, as root only,
# the routers as Python packages into .cache/bench. What cannot be had, the benchmark shows as SKIPPED.
set -euo pipefail
source "$(dirname "$0")/../tests/clients/prepare.sh"
policy=/usr/sbin/policy-rc.d

main() {
    mkdir -p .cache/bench
    trap allow_services EXIT
    command -v nginx >/dev/null || without_service nginx-light
    command -v haproxy >/dev/null || without_service haproxy
    local router
    for router in vllm-router sglang-router litellm; do
        # In the background, because in a condition its first failure would not end it.
        python_environment "bench/$router" "bench/requirements-$router.txt" &
        wait $! || echo "$router could not be installed" >&2
    done
}

# without_service PACKAGE: installs the package and keeps it from starting what it contains.
without_service() {
    if [[ $(id -u) == 0 && ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        own_policy=yes
    fi
    debian_package "$1" "measured beside the coordinator"
}

allow_services() {
    [[ -z ${own_policy:-} ]] || rm -f "$policy"
}

main
