//! The world as it is, with the real binaries: NAT, networks that change, lose and swallow packets,
//! processes that die, reverse proxies and forward proxies.

mod agent_killed;
mod behind_nat;
mod faults;
mod forward_proxies;
mod ipv6;
mod partitions;
mod readme;
mod restart;
mod reverse_proxies;
