//! What agents and operators send: nothing panics, and what passes the rules can be stored, read
//! back and shown.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use ollama_coordinator::api::address::{self, Peer};
use ollama_coordinator::api::validate;
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::register::RegisterRequest;
use ollama_coordinator_common::protocol::view::PatchAgentRequest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<RegisterRequest>(bytes) {
        let peer = Peer {
            remote: SocketAddr::from(([192, 168, 1, 20], 50_000)),
            local: SocketAddr::from(([192, 168, 1, 10], 11_400)),
        };
        if validate::registration(&request).is_ok() {
            let taken = address::resolve(request.ip_address, request.port, peer);
            assert!(taken.is_err() || taken.is_ok_and(|ip| !ip.is_loopback() && !ip.is_multicast()));
            let text = serde_json::to_string(&request).expect("it can be shown");
            let again: RegisterRequest = serde_json::from_str(&text).expect("it can be read back");
            assert_eq!(again, request);
        }
    }
    if let Ok(request) = serde_json::from_slice::<HeartbeatRequest>(bytes)
        && validate::heartbeat(&request).is_ok()
    {
        let text = serde_json::to_string(&request).expect("it can be shown");
        let again: HeartbeatRequest = serde_json::from_str(&text).expect("it can be read back");
        assert_eq!(again, request);
    }
    if let Ok(request) = serde_json::from_slice::<PatchAgentRequest>(bytes) {
        let _ = validate::patch(&request);
    }
});
