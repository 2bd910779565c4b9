//! Hosts with networks of their own, all on this machine: network namespaces, cables between them
//! and the rules of their firewalls. Nothing leads out of them. Making them takes root.

use std::fs::File;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static MADE: AtomicU32 = AtomicU32::new(0);

/// A network namespace with a loopback interface; removed when dropped.
#[derive(Debug)]
pub(crate) struct Host {
    name: String,
    space: File,
}

/// While it lives, what this thread opens and starts is on the host; afterwards it is not.
#[derive(Debug)]
pub(crate) struct Inside {
    outside: File,
}

impl Host {
    /// Makes a host.
    ///
    /// # Errors
    /// It is not possible here; the text says why.
    pub(crate) fn new(role: &str) -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("only root can make network namespaces".to_owned());
        }
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("oc-{}-{made}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let space = File::open(format!("/run/netns/{name}"));
        let space = space.map_err(|error| error.to_string())?;
        let host = Self { name, space };
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// Changes the host's interfaces, addresses or routes, as `ip` has it.
    pub(crate) fn ip(&self, change: &str) -> Result<(), String> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(change.split(' '));
        run(&mut command)
    }

    /// Changes the host's firewall, as `nft` has it.
    pub(crate) fn nft(&self, change: &str) -> Result<(), String> {
        let _inside = self.enter();
        run(Command::new("nft").arg(change))
    }

    /// Lets an interface send no more than 1 Mbit/s, and keep what waits for at most 0.4 s.
    ///
    /// # Errors
    /// It is not possible here; the text says why.
    pub(crate) fn slow_down(&self, interface: &str) -> Result<(), String> {
        let queue = "root tbf rate 1mbit burst 32kbit latency 400ms";
        let add = ["-n", &self.name, "qdisc", "add", "dev", interface];
        run(Command::new("tc").args(add).args(queue.split(' ')))
    }

    /// Lets the host pass on what is not for itself.
    pub(crate) fn forward(&self) -> Result<(), String> {
        let _inside = self.enter();
        // The file shows the network of the thread that opens it.
        let written = std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        written.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Lays a cable to another host, with an address at each end.
    pub(crate) fn connect(
        &self,
        (interface, address): (&str, &str),
        other: &Self,
        (other_interface, other_address): (&str, &str),
    ) -> Result<(), String> {
        run(Command::new("ip")
            .args(["link", "add", interface, "netns", &self.name])
            .args([
                "type",
                "veth",
                "peer",
                "name",
                other_interface,
                "netns",
                &other.name,
            ]))?;
        self.plug_in(interface, address)?;
        other.plug_in(other_interface, other_address)
    }

    fn plug_in(&self, interface: &str, address: &str) -> Result<(), String> {
        let is_v6 = address.contains(':');
        let no_wait = if is_v6 { " nodad" } else { "" };
        self.ip(&format!("addr add {address} dev {interface}{no_wait}"))?;
        self.ip(&format!("link set {interface} up"))
    }

    /// Puts this thread on the host.
    pub(crate) fn enter(&self) -> Inside {
        let outside = File::open("/proc/thread-self/ns/net").expect("a thread has a network");
        move_to(&self.space).expect("the host exists and this is root");
        Inside { outside }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(reason) = run(Command::new("ip").args(["netns", "del", &self.name])) {
            super::say(&format!("{} is left: {reason}", self.name));
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        move_to(&self.outside).expect("this thread came from there");
    }
}

fn move_to(space: &File) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    Ok(move_into_link_name_space(
        space.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

/// Runs a command to its end; what it wrote about its failure is the error.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", said.trim()))
}
