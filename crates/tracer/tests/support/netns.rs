//! Network namespaces: one that goes with the thread that made it, and one with a name, which others can find.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// A named network namespace that goes with the test.
pub struct Netns(String);

impl Netns {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Tests of one process run at once.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let netns = Self(format!("weir-{name}-{}-{number}", std::process::id()));
        assert!(Command::new("ip").args(["netns", "add", &netns.0]).status().unwrap().success());
        netns
    }

    /// Runs `inside` on a thread that is in it.
    pub fn enter<T: Send>(&self, inside: impl FnOnce(u32) -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.0);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = std::fs::File::open(&path).unwrap();
                let inode = file.metadata().unwrap().ino() as u32;
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
                inside(inode)
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}
