/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * What user space decides before it loads a probe, and the check that follows from it: whether a task lives in the
 * scope. `Settings` in probes/setup.rs is the same bytes. The kernel freezes them, so a switch that is off costs nothing:
 * the verifier drops what it guards.
 */
#pragma once

struct settings {
	/* The cgroup v2 directory's inode; only sockets of processes in it or below are traced. 0: everything is. */
	__u64 scope_id;
	/* How deep that directory lies; the root is 0. */
	__u32 scope_level;
	/* UDP flows at once, without the `other` peers'. */
	__u32 udp_flows_max;
	/* UDP peers of one socket: a noisy one cannot take the whole table. */
	__u32 udp_peers_max;
	/* Whether datagrams are counted. */
	__u8 udp;
	/* Whether DNS is watched. */
	__u8 dns;
	__u8 pad[2];
};
_Static_assert(sizeof(struct settings) == 24, "probes/setup.rs has the same");

const volatile struct settings settings SEC(".rodata.settings") = {};

/* Before Linux 6.1 a cgroup listed its ancestors' ids, since then it lists them. */
struct cgroup___ids {
	__u64 ancestor_ids[0];
} __attribute__((preserve_access_index));

static __always_inline bool is_scoped(void)
{
	return settings.scope_id != 0;
}

static __always_inline bool is_cgroup_in_scope(struct cgroup *cgroup)
{
	__u32 level = settings.scope_level;
	__u64 id = 0;

	if (!cgroup || cgroup->level < (int)level)
		return false;
	/* An array without a bound cannot be walked directly, hence the probing reads. */
	if (bpf_core_field_exists(cgroup->ancestors)) {
		struct cgroup *ancestor = NULL;
		bpf_probe_read_kernel(&ancestor, sizeof(ancestor),
				      (void *)cgroup + bpf_core_field_offset(cgroup->ancestors) + level * sizeof(ancestor));
		id = BPF_CORE_READ(ancestor, kn, id);
	} else {
		struct cgroup___ids *older = (void *)cgroup;
		bpf_probe_read_kernel(&id, sizeof(id),
				      (void *)cgroup + bpf_core_field_offset(older->ancestor_ids) + level * sizeof(id));
	}
	return id == settings.scope_id;
}

static __always_inline bool is_task_in_scope(struct task_struct *task)
{
	return !is_scoped() || is_cgroup_in_scope(task->cgroups->dfl_cgrp);
}
