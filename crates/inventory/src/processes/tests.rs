use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> MonotonicNanos {
    MonotonicNanos(seconds * SECOND)
}

fn id(letter: char) -> ContainerId {
    ContainerId::parse(&letter.to_string().repeat(64)).unwrap()
}

fn fact(pid: u32, start: u64, name: &str, container: Option<ContainerId>, netns: u32) -> ProcessFact {
    ProcessFact {
        id: ProcessId { pid, start: at(start) },
        name: name.into(),
        cgroup_path: container.as_ref().map_or(String::new(), |id| format!("/docker/{id}")).into(),
        container,
        netns,
    }
}

fn name(processes: &Processes, view: &SocketView<'_>) -> Option<String> {
    processes.local_end(view).process.map(|fact| fact.name.into())
}

#[test]
fn a_reused_pid_is_never_named_after_the_old_process() {
    let mut processes = Processes::new(Limits::default());
    processes.observe(at(100), vec![fact(5, 10, "old", None, 0)]);
    processes.observe(at(110), vec![fact(5, 105, "new", None, 0)]);
    let view = |seconds| SocketView { pid: 5, at: at(seconds), ..SocketView::default() };
    assert_eq!(name(&processes, &view(99)).as_deref(), Some("old"));
    assert_eq!(name(&processes, &view(100)).as_deref(), Some("old"));
    assert_eq!(name(&processes, &view(103)), None, "someone unseen may have held the pid in between");
    assert_eq!(name(&processes, &view(106)).as_deref(), Some("new"));
    assert_eq!(name(&processes, &view(5)), None);
    let started = |start| SocketView { pid: 5, process_start: start, at: at(106), ..SocketView::default() };
    assert_eq!(name(&processes, &started(10 * SECOND + 3_000_000)).as_deref(), Some("old"));
    assert_eq!(name(&processes, &started(50 * SECOND)), None);
}

#[test]
fn a_pid_from_another_namespace_or_another_time_names_nobody() {
    let mut processes = Processes::new(Limits::default());
    processes.observe(at(100), vec![fact(5, 10, "a", None, 7)]);
    let view = SocketView { pid: 5, netns: 7, at: at(50), ..SocketView::default() };
    assert_eq!(name(&processes, &view).as_deref(), Some("a"));
    assert_eq!(name(&processes, &SocketView { netns: 8, ..view }), None);
    assert_eq!(name(&processes, &SocketView { at: at(101), ..view }), None, "a time that has not come");
}

#[test]
fn a_process_that_ended_is_known_for_a_while_and_then_forgotten() {
    let limits = Limits { tombstones: 2, ..Limits::default() };
    let mut processes = Processes::new(limits);
    processes.observe(at(100), vec![fact(5, 10, "a", None, 0)]);
    let changes = processes.observe(at(110), vec![]);
    assert_eq!(changes.gone.len(), 1);
    assert_eq!(name(&processes, &SocketView { pid: 5, at: at(90), ..SocketView::default() }).as_deref(), Some("a"));
    processes.observe(at(420), vec![]);
    assert_eq!((processes.living(), processes.tombstones()), (0, 0));
    processes.observe(at(430), (1..=5).map(|pid| fact(pid, 1, "b", None, 0)).collect());
    processes.observe(at(440), vec![]);
    assert_eq!(processes.tombstones(), 2);
    assert_eq!(processes.by_pid.len(), 2);
}

#[test]
fn the_cgroup_at_creation_comes_before_the_namespace_and_the_process() {
    let mut processes = Processes::new(Limits::default());
    processes.observe(at(100), vec![fact(5, 10, "a", Some(id('b')), 7)]);
    let path = format!("/docker/{}", id('a'));
    let view = SocketView { pid: 5, netns: 7, cgroup_path: Some(&path), at: at(50), ..SocketView::default() };
    let end = processes.local_end(&view);
    assert_eq!((end.container, end.basis, end.certainty), (Some(id('a')), Basis::Cgroup, Certainty::Known));
    let outside = SocketView { cgroup_path: Some("/system.slice/x.service"), ..view };
    assert_eq!(processes.local_end(&outside).container, None);
    let by_netns = processes.local_end(&SocketView { cgroup_path: Some("/"), ..view });
    assert_eq!((by_netns.container, by_netns.basis), (Some(id('b')), Basis::Netns));
}

#[test]
fn a_namespace_names_its_container_only_when_it_holds_exactly_one() {
    let mut processes = Processes::new(Limits::default());
    let view = |netns, seconds| SocketView { netns, at: at(seconds), ..SocketView::default() };
    processes.observe(
        at(100),
        vec![
            fact(1, 1, "init", None, 1),
            fact(2, 10, "on the host network", Some(id('a')), 1),
            fact(3, 10, "pause", Some(id('b')), 2),
            fact(4, 11, "app", Some(id('c')), 2),
            fact(5, 20, "alone", Some(id('d')), 3),
            fact(6, 21, "its child", Some(id('d')), 3),
        ],
    );
    assert_eq!(processes.local_end(&view(1, 50)).container, None);
    assert_eq!(processes.local_end(&view(2, 50)).container, None);
    assert_eq!(processes.local_end(&view(3, 50)).container, Some(id('d')));
    assert_eq!(processes.local_end(&view(3, 15)).basis, Basis::Unknown, "the inode was somebody else's then");
    assert_eq!(processes.local_end(&view(0, 50)).basis, Basis::Unknown);
    let by_process = processes.local_end(&SocketView { pid: 4, ..view(2, 50) });
    assert_eq!((by_process.container, by_process.basis), (Some(id('c')), Basis::Process));
}

#[test]
fn a_snapshot_tells_what_is_new_changed_and_gone_and_no_more() {
    let mut processes = Processes::new(Limits { processes: 2, ..Limits::default() });
    let first =
        processes.observe(at(1), vec![fact(1, 0, "a", None, 0), fact(2, 0, "b", None, 0), fact(3, 0, "c", None, 0)]);
    assert_eq!((first.new.len(), first.gone.len(), first.refused), (2, 0, 1));
    let same = processes.observe(at(2), vec![fact(1, 0, "a", None, 0), fact(2, 0, "b", None, 0)]);
    assert_eq!(same, Changes::default());
    let renamed = processes.observe(at(3), vec![fact(1, 0, "exec", None, 0)]);
    assert_eq!((renamed.new[0].name.as_ref(), renamed.gone[0].id.pid), ("exec", 2));
}

#[test]
fn a_reused_namespace_inode_is_never_named_after_the_old_or_the_next_container() {
    let mut processes = Processes::new(Limits::default());
    processes.observe(at(100), vec![fact(5, 10, "old", Some(id('a')), 7)]);
    let container = |processes: &Processes, seconds| {
        processes.local_end(&SocketView { netns: 7, at: at(seconds), ..SocketView::default() }).container
    };
    assert_eq!(container(&processes, 50), Some(id('a')));
    assert_eq!(container(&processes, 105), None, "the inode may be another namespace's by then");
    processes.observe(at(110), vec![fact(6, 104, "new", Some(id('b')), 7)]);
    assert_eq!(container(&processes, 50), None, "whoever held it then has gone");
    assert_eq!(container(&processes, 103), None);
    assert_eq!(container(&processes, 105), Some(id('b')));
}
