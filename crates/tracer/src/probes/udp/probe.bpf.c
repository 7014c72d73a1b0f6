/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * UDP: payload bytes of every datagram, by socket and peer, IPv4 and IPv6, in every cgroup and network namespace.
 *
 * Traces: cgroup_skb ingress and egress on the scope's cgroup, else on the root of cgroup v2 (kernel 4.10 or newer; 5.12
 *         for the storage), which see each datagram before it is cut into fragments or segments on its way out, and
 *         after they were put together on its way in. They always let it pass.
 *         cgroup/sock_create: whose the socket is. cgroup/sock_release: its flows end.
 *         tp_btf/udp_fail_queue_rcv_skb: a datagram that the ingress program counted found the receive queue full.
 * Walks:  iter/bpf_sk_storage_map for the main flows, iter/task_file for owners of sockets older than the probe.
 * Yields: rows of main flows in the rings `udp_live` and `udp_closed`; the hash `udp_flows`, read and emptied by user
 *         space, and a record in the ring `udp_gone` for each socket that had flows there and is gone.
 *         docs/decisions/0005 has what it costs, and why these hooks. DNS: `dns.bpf.h`.
 */
#include "datagram.bpf.h"
#include "dns.bpf.h"
#include "translated.bpf.h"

enum outcome {
	/* Not UDP, or counted. */
	DONE,
	/* A datagram of another shape or another flow, or DNS. */
	UNUSUAL,
};

/* The usual datagram: its headers lie in one piece, and it belongs to its socket's main flow. TCP leaves here first. */
static __always_inline enum outcome count_usual(struct __sk_buff *skb, bool outgoing)
{
	void *start = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct bpf_sock *sk = skb->sk;
	struct udp_socket *socket;
	struct udp_header *udp;
	struct udp_main *main;
	__u32 payload;

	if (skb->protocol == bpf_htons(0x0800)) {
		struct ipv4_header *ip = start;
		if ((void *)(ip + 1) + sizeof(*udp) > end)
			return UNUSUAL;
		if (ip->protocol != IPPROTO_UDP)
			return DONE;
		if (ip->version_and_length != 0x45 || !sk)
			return UNUSUAL;
		udp = (void *)(ip + 1);
		if (settings.dns && is_dns(udp, outgoing))
			return UNUSUAL;
		if (!settings.udp)
			return DONE;
		socket = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
		if (!socket || !has_ends_v4(&socket->main.key, ip, outgoing) || !has_ports(&socket->main.key, udp, outgoing))
			return UNUSUAL;
		payload = payload_of(skb, sizeof(*ip), udp->length);
	} else if (skb->protocol == bpf_htons(0x86dd)) {
		struct ipv6_header *ip = start;
		if ((void *)(ip + 1) + sizeof(*udp) > end)
			return UNUSUAL;
		if (ip->next != IPPROTO_UDP)
			return is_extension(ip->next) ? UNUSUAL : DONE;
		if (!sk)
			return DONE;
		udp = (void *)(ip + 1);
		if (settings.dns && is_dns(udp, outgoing))
			return UNUSUAL;
		if (!settings.udp)
			return DONE;
		socket = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
		if (!socket || !has_ends_v6(&socket->main.key, ip, outgoing) || !has_ports(&socket->main.key, udp, outgoing))
			return UNUSUAL;
		payload = payload_of(skb, sizeof(*ip), udp->length);
	} else {
		return DONE;
	}
	main = &socket->main;
	if (main->state != MAIN_LIVES || payload > skb->len)
		return UNUSUAL;
	__sync_fetch_and_add(outgoing ? &main->sent : &main->recv, payload);
	return DONE;
}

static __always_inline void count_any(struct __sk_buff *skb, bool outgoing)
{
	struct bpf_sock *sk = skb->sk;
	struct udp_key key = {};
	struct udp_socket *socket;
	struct udp_flow *flow;
	__u32 payload = 0, payload_at = 0;
	__u64 datagrams = skb->gso_segs ? skb->gso_segs : 1;
	__u64 now;

	/* Read here: the verifier takes the context's fields only by constant offsets, not where two paths have met. */
	asm volatile("" : "+r"(datagrams));
	if (!sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol != IPPROTO_UDP || !parse(skb, outgoing, &key, &payload, &payload_at))
		return;
	if (outgoing)
		take_socket_view(skb, sk, &key);
	if (settings.dns && key.remote_port == DNS_PORT)
		dns(skb, sk, &key, outgoing, payload, payload_at);
	if (!settings.udp)
		return;
	socket = bpf_sk_storage_get(&udp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket) {
		add(UDP_NO_STORAGE, datagrams);
		add(UDP_NO_STORAGE_BYTES, payload);
		return;
	}
	if (is_main(&socket->main, &key)) {
		__sync_fetch_and_add(outgoing ? &socket->main.sent : &socket->main.recv, payload);
		return;
	}
	now = bpf_ktime_get_ns();
	key.cookie = bpf_get_socket_cookie(skb);
	flow = bpf_map_lookup_elem(&udp_flows, &key);
	if (flow) {
		/* Made before the back-fill had found the owner. */
		if (!flow->origin.netns && socket->origin.netns)
			flow->origin = socket->origin;
	} else if (has_room(socket, key.cookie)) {
		if (socket->origin.netns && claim_main(socket, &key, outgoing, now)) {
			__sync_fetch_and_add(outgoing ? &socket->main.sent : &socket->main.recv, payload);
			return;
		}
		flow = make_flow(socket, &key, outgoing, 0, now);
	}
	if (!flow) {
		to_other(&key);
		flow = bpf_map_lookup_elem(&udp_flows, &key);
		if (!flow)
			flow = make_flow(socket, &key, outgoing, OTHER_PEER, now);
		if (flow)
			add(UDP_PEERS_CAPPED, datagrams);
	}
	if (!flow) {
		add(UDP_LOST_DATAGRAMS, datagrams);
		add(UDP_LOST_BYTES, payload);
		return;
	}
	__sync_fetch_and_add(outgoing ? &flow->sent : &flow->recv, payload);
	flow->last_ns = now;
}

static __always_inline int datagram(struct __sk_buff *skb, bool outgoing)
{
	if (count_usual(skb, outgoing) == UNUSUAL)
		count_any(skb, outgoing);
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
	/* Without storage its datagrams are lost, and counted then. */
	if (!socket)
		return 1;
	set_process(&socket->origin, task);
	socket->origin.netns = task->nsproxy->net_ns->ns.inum;
	set_cgroup(&socket->origin, 0, task);
	socket->from_birth = 1;
	return 1;
}

/* The main flow of a socket that ends. Without room in the ring it lives on in the hash, where expiry ends it. */
static __always_inline void end_main(struct udp_socket *socket)
{
	__u32 before = __sync_lock_test_and_set(&socket->main.state, MAIN_TAKEN);
	struct udp_main *main = &socket->main;
	struct udp_flow spilled = {};
	struct row *row;
	__u64 now;

	if (before != MAIN_LIVES && before != MAIN_ENDING)
		return;
	now = bpf_ktime_get_ns();
	row = bpf_ringbuf_reserve(&udp_closed, sizeof(*row), 0);
	if (row) {
		fill_row(row, socket, now);
		bpf_ringbuf_submit(row, BPF_RB_NO_WAKEUP);
		add(UDP_MAINS_ENDED, 1);
		return;
	}
	add(UDP_GONE_RING_FULL, 1);
	spilled.origin = socket->origin;
	spilled.start_ns = main->start_ns;
	spilled.last_ns = now;
	spilled.sent = main->sent;
	spilled.recv = main->recv;
	spilled.dropped = main->dropped;
	spilled.direction = main->direction;
	spilled.certainty = main->certainty;
	if (!bpf_map_update_elem(&udp_flows, &main->key, &spilled, BPF_NOEXIST))
		return;
	add(UDP_MAINS_ENDED, 1);
	/* How many datagrams that were is not known. */
	add(UDP_LOST_DATAGRAMS, 1);
	add(UDP_LOST_BYTES, main->sent + main->recv);
}

SEC("cgroup/sock_release")
int weir_udp_gone(struct bpf_sock *sk)
{
	struct udp_socket *socket;
	struct udp_gone *gone;

	if (sk->protocol != IPPROTO_UDP)
		return 1;
	socket = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
	if (!socket)
		return 1;
	end_main(socket);
	if (!socket->hashed)
		return 1;
	gone = bpf_ringbuf_reserve(&udp_gone, sizeof(*gone), 0);
	if (!gone) {
		add(UDP_GONE_RING_FULL, 1);
		return 1;
	}
	gone->key = socket->first;
	gone->at_ns = bpf_ktime_get_ns();
	gone->hashed = socket->hashed;
	bpf_ringbuf_submit(gone, BPF_RB_NO_WAKEUP);
	return 1;
}

/* Tells the main flows that live; or ends those that are idle, if `UDP_IDLE_SINCE` says so. */
SEC("iter/bpf_sk_storage_map")
int weir_udp_walk(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct udp_socket *socket = ctx->value;
	struct udp_main *main;
	struct row *row;
	__u64 idle_since, received, dropped, sent;
	__u32 state;

	if (!socket)
		return 0;
	main = &socket->main;
	state = *(volatile __u32 *)&main->state;
	if (state != MAIN_LIVES && state != MAIN_ENDING)
		return 0;
	received = *(volatile __u64 *)&main->recv;
	dropped = *(volatile __u64 *)&main->dropped;
	received = received > dropped ? received - dropped : 0;
	sent = *(volatile __u64 *)&main->sent;
	if (sent != main->seen_sent || received > main->seen_recv) {
		main->changed_ns = bpf_ktime_get_ns();
		main->seen_sent = sent;
		if (received > main->seen_recv)
			main->seen_recv = received;
	}
	idle_since = number_of(UDP_IDLE_SINCE);
	if (idle_since) {
		if (main->changed_ns >= idle_since)
			return 0;
		if (state == MAIN_LIVES) {
			__sync_val_compare_and_swap(&main->state, MAIN_LIVES, MAIN_ENDING);
			return 0;
		}
	}
	/* No room: 1 asks for this socket again, after user space has emptied the ring. */
	row = bpf_ringbuf_reserve(&udp_live, sizeof(*row), 0);
	if (!row)
		return 1;
	if (idle_since && __sync_val_compare_and_swap(&main->state, MAIN_ENDING, MAIN_TAKEN) != MAIN_ENDING) {
		bpf_ringbuf_discard(row, BPF_RB_NO_WAKEUP);
		return 0;
	}
	fill_row(row, socket, main->changed_ns);
	if (idle_since) {
		main->sent = 0;
		main->recv = 0;
		main->dropped = 0;
		main->seen_sent = 0;
		main->seen_recv = 0;
		__sync_fetch_and_add(&socket->flows, -1);
		add(UDP_MAINS_ENDED, 1);
		/* The last: from here on it may be claimed anew. */
		__sync_lock_test_and_set(&main->state, MAIN_NONE);
	}
	bpf_ringbuf_submit(row, BPF_RB_NO_WAKEUP);
	return 0;
}

/* The ingress program has counted this datagram a moment ago on the same processor. */
SEC("tp_btf/udp_fail_queue_rcv_skb")
int BPF_PROG(weir_udp_full, int rc, struct sock *sk, struct sk_buff *skb)
{
	struct udp_key key = {};
	struct udp_socket *socket;
	struct udp_flow *flow;
	__be16 ports[2];
	__u8 addresses[32];
	unsigned char *head = skb->head;

	if (sk->sk_protocol != IPPROTO_UDP)
		return 0;
	/* The ingress program has made it, if the socket is in the scope. */
	socket = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
	if (!socket)
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
	if (is_main(&socket->main, &key)) {
		__sync_fetch_and_add(&socket->main.dropped, skb->len);
		return 0;
	}
	flow = bpf_map_lookup_elem(&udp_flows, &key);
	if (!flow) {
		to_other(&key);
		flow = bpf_map_lookup_elem(&udp_flows, &key);
	}
	if (flow)
		__sync_fetch_and_add(&flow->dropped, skb->len);
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
	if (!socket)
		return 0;
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
