//! A network namespace that goes with the thread that made it.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Runs `inside` in a network namespace of its own, with loopback up; its argument is the namespace's inode.
pub fn in_new_netns<T: Send>(inside: impl FnOnce(u32) -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", &["link", "set", "lo", "up"]);
            inside(std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino() as u32)
        });
        match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Runs `outside` in the namespace of the process.
pub fn outside<T: Send>(outside: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let own = std::fs::File::open("/proc/self/ns/net").unwrap();
            nix::sched::setns(own, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            outside()
        });
        thread.join().unwrap()
    })
}

/// A command of the system, in the calling thread's namespace; it must end well.
pub fn run(program: &str, args: &[&str]) {
    assert!(Command::new(program).args(args).status().unwrap().success(), "{program} {args:?}");
}
