/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * Whose a socket is: process, cgroup and network namespace. Shared by the probes; `Origin` in probes/layout.rs is the
 * same bytes.
 */
#pragma once

struct origin {
	/* The process' start, nanoseconds since boot (task_struct::start_boottime of the group's leader). 0 unknown. */
	__u64 process_start;
	/* The inode of the cgroup v2 directory. 0 unknown. */
	__u64 cgroup_id;
	/* The thread group in the initial pid namespace. 0 unknown. */
	__u32 pid;
	/* The network namespace's inode. 0 unknown. */
	__u32 netns;
	char comm[16];
};
_Static_assert(sizeof(struct origin) == 40, "probes/layout.rs has the same");

/* The root of cgroup v2 has this id on every kernel: the hierarchy's first directory. On hosts that still use version 1
 * each socket may read it, and then the creating task's own place says more. */
#define ROOT_CGROUP_ID 1

static __always_inline __u64 cgroup_of_task(struct task_struct *task)
{
	return task->cgroups->dfl_cgrp->kn->id;
}

static __always_inline __u64 cgroup_of_sock(const struct sock *sk)
{
	if (!bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return 0;
	struct cgroup *cgroup = sk->sk_cgrp_data.cgroup;
	if (!cgroup)
		return 0;
	return cgroup->kn->id;
}

/* A kernel thread, or the idle task that a soft interrupt happened to meet, is nobody's owner. */
static __always_inline bool is_user_task(struct task_struct *task)
{
	return task->tgid != 0 && !(task->flags & PF_KTHREAD);
}

static __always_inline void set_process(struct origin *origin, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	origin->pid = task->tgid;
	origin->process_start = leader->start_boottime;
	bpf_probe_read_kernel_str(origin->comm, sizeof(origin->comm), leader->comm);
}

static __always_inline void set_place(struct origin *origin, const struct sock *sk, struct task_struct *task)
{
	origin->netns = sk->__sk_common.skc_net.net->ns.inum;
	origin->cgroup_id = cgroup_of_sock(sk);
	if (origin->cgroup_id <= ROOT_CGROUP_ID && task)
		origin->cgroup_id = cgroup_of_task(task);
}
