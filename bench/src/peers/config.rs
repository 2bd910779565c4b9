//! How each peer is configured: one thread, connections to the upstreams kept, nothing logged,
//! nothing held back.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// What keeps `LiteLLM` from fetching prices and asking for a key.
pub(crate) const LITELLM: [(&str, &str); 4] = [
    ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
    ("LITELLM_LOG", "ERROR"),
    ("DISABLE_ADMIN_UI", "True"),
    (
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY",
        "true",
    ),
];

/// Returns nginx's configuration; its paths are relative to its prefix.
pub(crate) fn nginx(addr: SocketAddr, upstreams: &[SocketAddr]) -> String {
    let servers = lines(upstreams, |upstream| format!("server {upstream}; "));
    format!(
        "daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path client;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  upstream runtimes {{ {servers}keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen {addr} backlog=4096;
    location / {{
      proxy_pass http://runtimes;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering off;
      proxy_read_timeout 10m;
    }}
  }}
}}
"
    )
}

/// Returns haproxy's configuration.
pub(crate) fn haproxy(addr: SocketAddr, upstreams: &[SocketAddr]) -> String {
    let servers = lines(upstreams, |upstream| {
        format!("  server runtime{} {upstream}\n", upstream.port())
    });
    format!(
        "global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 10m
  timeout server 10m
  option http-no-delay
  http-reuse always
frontend clients
  bind {addr} backlog 4096
  default_backend runtimes
backend runtimes
  balance roundrobin
{servers}"
    )
}

fn lines(upstreams: &[SocketAddr], line: impl Fn(&SocketAddr) -> String) -> String {
    upstreams.iter().map(line).collect()
}

/// Returns the arguments that the two routers have in common; the upstreams' addresses follow.
pub(crate) fn router(addr: SocketAddr, metrics: SocketAddr) -> [String; 13] {
    [
        "--host".to_owned(),
        addr.ip().to_string(),
        "--port".to_owned(),
        addr.port().to_string(),
        "--prometheus-host".to_owned(),
        metrics.ip().to_string(),
        "--prometheus-port".to_owned(),
        metrics.port().to_string(),
        "--policy".to_owned(),
        "round_robin".to_owned(),
        "--log-level".to_owned(),
        "error".to_owned(),
        "--worker-urls".to_owned(),
    ]
}

/// Returns `LiteLLM`'s configuration.
pub(crate) fn litellm(upstreams: &[SocketAddr]) -> Value {
    let models: Vec<Value> = upstreams
        .iter()
        .map(|upstream| {
            json!({
                "model_name": "*",
                "litellm_params": {
                    "model": "openai/*",
                    "api_base": format!("http://{upstream}/v1"),
                    "api_key": "none",
                },
            })
        })
        .collect();
    json!({
        "model_list": models,
        "router_settings": { "routing_strategy": "simple-shuffle" },
        "litellm_settings": { "telemetry": false, "request_timeout": 600 },
    })
}
