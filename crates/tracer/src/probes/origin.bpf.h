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
	/* On hosts that run containers under cgroup version 1, where version 2 tells nothing: the directory's inode in the
	 * memory or the pids hierarchy, the hierarchy's number in the highest byte. 0 unknown. */
	__u64 v1_cgroup;
	/* The thread group in the initial pid namespace. 0 unknown. */
	__u32 pid;
	/* The network namespace's inode. 0 unknown. */
	__u32 netns;
	char comm[16];
};
_Static_assert(sizeof(struct origin) == 48, "probes/layout.rs has the same");

/* The root of cgroup v2 has this id on every kernel: the hierarchy's first directory. On hosts that still use version 1
 * each socket may read it, and then the creating task's own place says more. */
#define ROOT_CGROUP_ID 1

/* The hierarchy's number is 0 for version 2. */
static __always_inline __u64 id_of_cgroup(struct cgroup *cgroup)
{
	return cgroup->kn->id | (__u64)(__u8)cgroup->root->hierarchy_id << 56;
}

/* 0 where the controller is version 2's, or has the task in its root. */
static __always_inline __u64 v1_cgroup_under(struct task_struct *task, __u64 controller)
{
	struct css_set *set = task->cgroups;
	struct cgroup_subsys_state **states = (void *)set + bpf_core_field_offset(set->subsys);
	struct cgroup *cgroup = states[controller]->cgroup;

	if (cgroup->level <= 0 || !cgroup->root->hierarchy_id)
		return 0;
	return id_of_cgroup(cgroup);
}

static __always_inline __u64 v1_cgroup_of_task(struct task_struct *task)
{
	__u64 found = 0;

	if (bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		found = v1_cgroup_under(task, bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id));
	if (!found && bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id))
		found = v1_cgroup_under(task, bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id));
	return found;
}

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

static __always_inline void set_cgroup(struct origin *origin, __u64 own, struct task_struct *task)
{
	origin->cgroup_id = own;
	origin->v1_cgroup = 0;
	if (own > ROOT_CGROUP_ID || !task)
		return;
	origin->cgroup_id = cgroup_of_task(task);
	if (origin->cgroup_id <= ROOT_CGROUP_ID)
		origin->v1_cgroup = v1_cgroup_of_task(task);
}

static __always_inline void set_place(struct origin *origin, const struct sock *sk, struct task_struct *task)
{
	origin->netns = sk->__sk_common.skc_net.net->ns.inum;
	set_cgroup(origin, cgroup_of_sock(sk), task);
}
