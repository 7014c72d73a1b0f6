/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * Cgroups: the path of each one that is made, so that a process which lived for some milliseconds, in a container that is
 * gone before user space looks, still has both named.
 *
 * Traces: tp_btf/cgroup_mkdir, which tells cgroups of every hierarchy, version 1's too.
 * Yields: one `struct cgroup_made` in the ring `cgroups_made` for each. Costs nothing but when a cgroup is made.
 */
#include "../kernel_types.h"
#include "../origin.bpf.h"

/* PATH_LENGTH_MAX in places.rs, and the zero at its end. */
#define PATH_SIZE 1024

struct cgroup_made {
	/* As in struct origin: the inode, with version 1's hierarchy on top. */
	__u64 id;
	/* Of the path, without the zero at its end. */
	__u32 length;
	char path[PATH_SIZE];
};

/* Its size is set before loading (probes/setup.rs). */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} cgroups_made SEC(".maps");

/* Too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cgroup_made);
} cgroup_scratch SEC(".maps");

/* How many found the ring full. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} cgroup_numbers SEC(".maps");

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(weir_cgroup_made, struct cgroup *cgroup, const char *path)
{
	struct cgroup_made *made;
	__u32 zero = 0;
	__u64 *lost;
	long size;

	made = bpf_map_lookup_elem(&cgroup_scratch, &zero);
	if (!made)
		return 0;
	size = bpf_probe_read_kernel_str(made->path, PATH_SIZE, path);
	if (size < 1 || size > PATH_SIZE)
		return 0;
	made->id = id_of_cgroup(cgroup);
	made->length = size - 1;
	if (!bpf_ringbuf_output(&cgroups_made, made, __builtin_offsetof(struct cgroup_made, path) + size, BPF_RB_NO_WAKEUP))
		return 0;
	lost = bpf_map_lookup_elem(&cgroup_numbers, &zero);
	if (lost)
		__sync_fetch_and_add(lost, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
