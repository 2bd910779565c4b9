//! Tells whether a directory is on a file system whose locks and fsync cannot be relied on.

use std::path::Path;

/// Returns the kind of network or user-space file system that holds `directory`, if it is one.
pub(super) fn network_file_system(directory: &Path) -> Option<String> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let directory = directory.canonicalize().ok()?;
    let kind = file_system_kind(&mounts, &directory)?;
    is_unreliable(kind).then(|| kind.to_owned())
}

/// Finds the mount with the longest path above `directory`; of several on one path, the last.
fn file_system_kind<'a>(mounts: &'a str, directory: &Path) -> Option<&'a str> {
    let mut found: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(mount_point), Some(kind)) = (words.next(), words.next()) else {
            continue;
        };
        let mount_point = mount_point.replace("\\040", " ");
        let longest = found.map_or(0, |(length, _)| length);
        if directory.starts_with(&mount_point) && mount_point.len() >= longest {
            found = Some((mount_point.len(), kind));
        }
    }
    found.map(|(_, kind)| kind)
}

fn is_unreliable(kind: &str) -> bool {
    const KINDS: [&str; 10] = [
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuseblk", "fuse",
    ];
    KINDS.contains(&kind) || kind.starts_with("fuse.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "/dev/vda / ext4 rw 0 0\n\
        server:/home /home nfs4 rw 0 0\n\
        //nas/share /mnt/with\\040space cifs rw 0 0\n\
        sshfs /home/me/far fuse.sshfs rw 0 0\n\
        tmpfs /home/me/near tmpfs rw 0 0\n\
        broken\n";

    #[test]
    fn network_mounts_are_known_by_the_nearest_mount_point() {
        let unreliable = |path: &str| {
            file_system_kind(MOUNTS, Path::new(path)).filter(|kind| is_unreliable(kind))
        };

        assert_eq!(unreliable("/var/lib/coordinator"), None);
        assert_eq!(unreliable("/home/me"), Some("nfs4"));
        assert_eq!(unreliable("/homely"), None);
        assert_eq!(unreliable("/home/me/far/data"), Some("fuse.sshfs"));
        assert_eq!(unreliable("/home/me/near/data"), None);
        assert_eq!(unreliable("/mnt/with space/data"), Some("cifs"));
    }
}
