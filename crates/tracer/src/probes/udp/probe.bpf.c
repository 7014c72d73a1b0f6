/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * UDP: payload bytes of every datagram, by socket and peer, IPv4 and IPv6, in every cgroup and network namespace.
 *
 * Traces: cgroup_skb ingress and egress on the scope's cgroup, else on the root of cgroup v2 (kernel 4.10 or newer; 5.11 for the storage), which see
 *         each datagram before it is cut into fragments or segments on its way out, and after they were put together
 *         on its way in. They always let it pass.
 *         cgroup/sock_create: whose the socket is. cgroup/sock_release: its flows end.
 *         tp_btf/udp_fail_queue_rcv_skb: a datagram that the ingress program counted found the receive queue full.
 * Walks:  iter/task_file for owners of sockets older than the probe.
 * Yields: the hash `udp_flows`, read and emptied by user space, and a record in the ring `udp_gone` for each socket that
 *         had flows and is gone. Costs about 0.3 microseconds a datagram, and 0.1 a TCP segment.
 */
#include "../kernel_types.h"
#include "../row.bpf.h"
#include "../settings.bpf.h"

/* struct udp_flow::flags, as in struct row: the flow stands for every peer beyond the cap. */
#define OTHER_PEER 1

struct udp_key {
	__u64 cookie;
	__u8 local[16];
	__u8 remote[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 family;
	__u16 pad;
};
_Static_assert(sizeof(struct udp_key) == 48, "probes/udp/mod.rs has the same");

struct udp_flow {
	struct origin origin;
	__u64 start_ns;
	__u64 last_ns;
	__u64 sent;
	__u64 recv;
	__u8 direction;
	__u8 certainty;
	__u8 flags;
	__u8 pad[5];
};
_Static_assert(sizeof(struct udp_flow) == 80, "probes/udp/mod.rs has the same");

struct udp_gone {
	/* The only flow's key, if `flows` is 1. */
	struct udp_key key;
	__u64 at_ns;
	/* Flows this socket ever made. */
	__u64 flows;
};
_Static_assert(sizeof(struct udp_gone) == 64, "probes/udp/mod.rs has the same");

struct udp_socket {
	struct origin origin;
	/* The first flow's key. */
	struct udp_key first;
	__u32 flows;
	__u32 confirmed_pass;
	/* The socket's creation was seen: the first datagram is the first. */
	__u8 from_birth;
	__u8 pad[7];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct udp_socket);
} udp_sockets SEC(".maps");

/* A plain, preallocated hash: what is full says so and is counted; an LRU would forget bytes silently. Its size is set
 * before loading (probes/setup.rs). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct udp_key);
	__type(value, struct udp_flow);
} udp_flows SEC(".maps");

/* Flows that expired, by socket, so that a long-lived server gets its room back. Only user space writes it, and an entry
 * that is forgotten only sends new peers to `other` earlier. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, __u64);
} udp_expired SEC(".maps");

/* Its size is set before loading (probes/setup.rs). */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} udp_gone SEC(".maps");

enum udp_number {
	/* Datagrams of peers beyond a cap: counted, but under the socket's `other` peer. */
	UDP_PEERS_CAPPED,
	/* Datagrams and bytes that even `other` had no room for: not counted. */
	UDP_LOST_DATAGRAMS,
	UDP_LOST_BYTES,
	/* Sockets whose end found the ring full: their flows end by expiry instead. */
	UDP_GONE_RING_FULL,
	/* Sockets that could not be given storage. */
	UDP_NO_STORAGE,
	/* Datagrams that the receiving application was too slow for: taken back. */
	UDP_QUEUE_FULL,
	/* Flows made (the kernel's) and deleted (user space's): the difference lives. */
	UDP_FLOWS_MADE,
	UDP_FLOWS_DELETED,
	/* The back-fill's pass, written by user space before each. */
	UDP_BACKFILL_PASS,
	UDP_NUMBERS,
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, UDP_NUMBERS);
	__type(key, __u32);
	__type(value, __u64);
} udp_numbers SEC(".maps");

static __always_inline void add(__u32 number, __u64 by)
{
	__u64 *value = bpf_map_lookup_elem(&udp_numbers, &number);
	if (value)
		__sync_fetch_and_add(value, by);
}

static __always_inline __u64 number_of(__u32 number)
{
	__u64 *value = bpf_map_lookup_elem(&udp_numbers, &number);
	return value ? *value : 0;
}

/* The addresses as the packet has them, so an IPv4 packet on an IPv6 socket is IPv4. */
struct datagram {
	__u8 source[16];
	__u8 destination[16];
	__u16 source_port;
	__u16 destination_port;
	__u16 family;
	__u32 payload;
};

static __always_inline bool is_extension(__u8 next)
{
	/* Hop-by-hop, routing, fragment, destination options. */
	return next == 0 || next == 43 || next == 44 || next == 60;
}

/* Offset 0 is the network header on both ways. */
static __always_inline bool parse(struct __sk_buff *skb, struct datagram *out)
{
	__be16 udp[4];
	__u32 offset;

	if (skb->protocol == bpf_htons(0x0800)) {
		__u8 header[20];
		if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)) || header[9] != IPPROTO_UDP)
			return false;
		out->family = AF_INET;
		__builtin_memcpy(out->source, &header[12], 4);
		__builtin_memcpy(out->destination, &header[16], 4);
		offset = (header[0] & 15) * 4;
	} else if (skb->protocol == bpf_htons(0x86dd)) {
		__u8 header[40];
		__u8 next;
		if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
			return false;
		out->family = AF_INET6;
		__builtin_memcpy(out->source, &header[8], 16);
		__builtin_memcpy(out->destination, &header[24], 16);
		next = header[6];
		offset = 40;
		for (int count = 0; count < 6 && is_extension(next); count++) {
			__u8 extension[2];
			if (bpf_skb_load_bytes(skb, offset, extension, sizeof(extension)))
				return false;
			offset += next == 44 ? 8 : (extension[1] + 1) * 8;
			next = extension[0];
		}
		if (next != IPPROTO_UDP)
			return false;
	} else {
		return false;
	}
	if (bpf_skb_load_bytes(skb, offset, udp, sizeof(udp)))
		return false;
	out->source_port = bpf_ntohs(udp[0]);
	out->destination_port = bpf_ntohs(udp[1]);
	/* Many datagrams in one buffer (UDP_SEGMENT, GRO) carry one header before they are cut: all that follows it is
	 * payload. A single one says its own length. */
	if (skb->gso_size || !udp[2])
		out->payload = skb->len - offset - 8;
	else
		out->payload = bpf_ntohs(udp[2]) - 8;
	return out->payload <= skb->len;
}

static __always_inline void fill_key(struct udp_key *key, const struct datagram *datagram, bool outgoing)
{
	__builtin_memcpy(key->local, outgoing ? datagram->source : datagram->destination, 16);
	__builtin_memcpy(key->remote, outgoing ? datagram->destination : datagram->source, 16);
	key->local_port = outgoing ? datagram->source_port : datagram->destination_port;
	key->remote_port = outgoing ? datagram->destination_port : datagram->source_port;
	key->family = datagram->family;
}

static __always_inline void to_other(struct udp_key *key)
{
	__builtin_memset(key->local, 0, 16);
	__builtin_memset(key->remote, 0, 16);
	key->remote_port = 0;
}

static __always_inline bool has_room(struct udp_socket *socket, __u64 cookie)
{
	if (number_of(UDP_FLOWS_MADE) - number_of(UDP_FLOWS_DELETED) >= settings.udp_flows_max)
		return false;
	if (socket->flows < settings.udp_peers_max)
		return true;
	__u64 *expired = bpf_map_lookup_elem(&udp_expired, &cookie);
	return socket->flows - (expired ? *expired : 0) < settings.udp_peers_max;
}

static __always_inline struct udp_flow *make(struct udp_socket *socket, struct udp_key *key, bool outgoing,
					     __u8 flags, __u64 now)
{
	struct udp_flow fresh = {};

	fresh.origin = socket->origin;
	fresh.start_ns = now;
	fresh.direction = outgoing ? DIRECTION_OUTGOING : DIRECTION_INCOMING;
	fresh.certainty = socket->from_birth ? CERTAINTY_KNOWN : CERTAINTY_INFERRED;
	fresh.flags = flags;
	/* Another processor may have made it meanwhile; then that one is used. */
	if (!bpf_map_update_elem(&udp_flows, key, &fresh, BPF_NOEXIST)) {
		add(UDP_FLOWS_MADE, 1);
		if (__sync_fetch_and_add(&socket->flows, 1) == 0)
			socket->first = *key;
	}
	return bpf_map_lookup_elem(&udp_flows, key);
}

static __always_inline int datagram(struct __sk_buff *skb, bool outgoing)
{
	struct bpf_sock *sk = skb->sk;
	struct datagram datagram = {};
	struct udp_key key = {};
	struct udp_socket *socket;
	struct udp_flow *flow;
	__u64 now;

	if (!sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol != IPPROTO_UDP || !parse(skb, &datagram))
		return 1;
	now = bpf_ktime_get_ns();
	key.cookie = bpf_get_socket_cookie(skb);
	fill_key(&key, &datagram, outgoing);

	flow = bpf_map_lookup_elem(&udp_flows, &key);
	if (!flow || !flow->origin.netns) {
		socket = bpf_sk_storage_get(&udp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (!socket) {
			add(UDP_NO_STORAGE, 1);
			return 1;
		}
		if (flow) {
			/* Made before the back-fill had found the owner. */
			if (socket->origin.netns)
				flow->origin = socket->origin;
		} else if (has_room(socket, key.cookie)) {
			flow = make(socket, &key, outgoing, 0, now);
		}
		if (!flow) {
			add(UDP_PEERS_CAPPED, skb->gso_segs ? skb->gso_segs : 1);
			to_other(&key);
			flow = bpf_map_lookup_elem(&udp_flows, &key);
			if (!flow)
				flow = make(socket, &key, outgoing, OTHER_PEER, now);
		}
	}
	if (!flow) {
		add(UDP_LOST_DATAGRAMS, skb->gso_segs ? skb->gso_segs : 1);
		add(UDP_LOST_BYTES, datagram.payload);
		return 1;
	}
	__sync_fetch_and_add(outgoing ? &flow->sent : &flow->recv, datagram.payload);
	flow->last_ns = now;
	return 1;
}

SEC("cgroup_skb/egress")
int weir_udp_out(struct __sk_buff *skb)
{
	return datagram(skb, true);
}

SEC("cgroup_skb/ingress")
int weir_udp_in(struct __sk_buff *skb)
{
	return datagram(skb, false);
}

SEC("cgroup/sock_create")
int weir_udp_open(struct bpf_sock *sk)
{
	struct udp_socket *socket;
	struct task_struct *task;

	if (sk->protocol != IPPROTO_UDP || (sk->family != AF_INET && sk->family != AF_INET6))
		return 1;
	task = bpf_get_current_task_btf();
	if (!is_user_task(task))
		return 1;
	socket = bpf_sk_storage_get(&udp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket) {
		add(UDP_NO_STORAGE, 1);
		return 1;
	}
	set_process(&socket->origin, task);
	socket->origin.netns = task->nsproxy->net_ns->ns.inum;
	socket->origin.cgroup_id = cgroup_of_task(task);
	socket->from_birth = 1;
	return 1;
}

SEC("cgroup/sock_release")
int weir_udp_gone(struct bpf_sock *sk)
{
	struct udp_socket *socket;
	struct udp_gone *gone;

	if (sk->protocol != IPPROTO_UDP)
		return 1;
	socket = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
	if (!socket || !socket->flows)
		return 1;
	gone = bpf_ringbuf_reserve(&udp_gone, sizeof(*gone), 0);
	if (!gone) {
		add(UDP_GONE_RING_FULL, 1);
		return 1;
	}
	gone->key = socket->first;
	gone->at_ns = bpf_ktime_get_ns();
	gone->flows = socket->flows;
	bpf_ringbuf_submit(gone, BPF_RB_NO_WAKEUP);
	return 1;
}

/* The ingress program has counted this datagram a moment ago on the same processor. */
SEC("tp_btf/udp_fail_queue_rcv_skb")
int BPF_PROG(weir_udp_full, int rc, struct sock *sk, struct sk_buff *skb)
{
	struct udp_key key = {};
	struct udp_flow *flow;
	__be16 ports[2];
	__u8 addresses[32];
	unsigned char *head = skb->head;

	if (sk->sk_protocol != IPPROTO_UDP)
		return 0;
	/* A socket that had a datagram has storage, if it is in the scope. */
	if (is_scoped() && !bpf_sk_storage_get(&udp_sockets, sk, 0, 0))
		return 0;
	add(UDP_QUEUE_FULL, 1);
	key.cookie = bpf_get_socket_cookie(sk);
	if (skb->protocol == bpf_htons(0x0800)) {
		if (bpf_probe_read_kernel(addresses, 8, head + skb->network_header + 12))
			return 0;
		key.family = AF_INET;
		__builtin_memcpy(key.remote, addresses, 4);
		__builtin_memcpy(key.local, addresses + 4, 4);
	} else {
		if (bpf_probe_read_kernel(addresses, 32, head + skb->network_header + 8))
			return 0;
		key.family = AF_INET6;
		__builtin_memcpy(key.remote, addresses, 16);
		__builtin_memcpy(key.local, addresses + 16, 16);
	}
	if (bpf_probe_read_kernel(ports, sizeof(ports), head + skb->transport_header))
		return 0;
	key.remote_port = bpf_ntohs(ports[0]);
	key.local_port = bpf_ntohs(ports[1]);
	flow = bpf_map_lookup_elem(&udp_flows, &key);
	if (!flow) {
		to_other(&key);
		flow = bpf_map_lookup_elem(&udp_flows, &key);
	}
	if (flow)
		__sync_fetch_and_add(&flow->recv, -(__u64)skb->len);
	return 0;
}

/* In pairs of passes, as in the TCP probe. */
SEC("iter/task_file")
int weir_udp_fill(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	__u32 key = UDP_BACKFILL_PASS, pass;
	struct udp_socket *socket;
	struct socket *sock;
	struct sock *sk;

	if (!task || !file)
		return 0;
	sock = bpf_sock_from_file(file);
	if (!sock)
		return 0;
	sk = sock->sk;
	if (!sk || sk->sk_protocol != IPPROTO_UDP)
		return 0;
	if (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6)
		return 0;
	if (!is_task_in_scope(task))
		return 0;
	socket = bpf_sk_storage_get(&udp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket) {
		add(UDP_NO_STORAGE, 1);
		return 0;
	}
	pass = number_of(key);
	if (!socket->origin.pid) {
		set_place(&socket->origin, sk, task);
		set_process(&socket->origin, task);
		socket->confirmed_pass = pass;
	} else if (socket->origin.pid == task->tgid) {
		set_process(&socket->origin, task);
		socket->confirmed_pass = pass;
	} else if ((pass & 1) && socket->confirmed_pass != pass - 1 && socket->confirmed_pass != pass) {
		set_process(&socket->origin, task);
		socket->confirmed_pass = pass;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
