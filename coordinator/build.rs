//! Has the crate built again when the dashboard was: its files are embedded.

fn main() {
    println!("cargo:rerun-if-changed=../dashboard/dist");
}
