/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * What the TCP probe remembers of a socket, its maps, and how a socket becomes a row.
 */
#pragma once
#include "../kernel_types.h"
#include "../row.bpf.h"
#include "../settings.bpf.h"
#include "counters.bpf.h"

/* struct tcp_socket::flags */
#define IS_LISTENER 1
/* A connection is open, from SYN_SENT or SYN_RECV to CLOSE; the walk yields it. */
#define IS_OPEN 2
/* The listener, or the listener that the connection came to, is held by several processes: prefork servers. Who accepted
 * is only known when somebody looks, or when it closes. */
#define IS_SHARED 4

/* What a socket carries with it (sk_storage): freed with the socket, so it needs no size and no eviction. */
struct tcp_socket {
	struct origin origin;
	/* All times CLOCK_MONOTONIC; 0 unknown. */
	__u64 start_ns;
	__u64 syn_ns;
	__u64 changed_ns;
	/* What the walk told last of this generation: a total that was told never falls. */
	__u64 told_sent;
	__u64 told_recv;
	__u32 told_retransmits;
	__u32 told_generation;
	__u32 connect_latency_us;
	/* How many connections this socket has ended (AF_UNSPEC keeps the socket and its cookie). */
	__u32 generation;
	/* The last back-fill pass that met the owner among the holders of the socket's file. */
	__u32 confirmed_pass;
	__u8 direction;
	__u8 certainty;
	__u8 flags;
	__u8 pad;
};
_Static_assert(sizeof(struct tcp_socket) == 112, "no hidden padding");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct tcp_socket);
} tcp_sockets SEC(".maps");

/* Both rings' sizes are set before loading (probes/setup.rs). */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} tcp_closed SEC(".maps");

/* A walk that fills it pauses (the program asks for the same socket again) until user space has emptied it. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} tcp_live SEC(".maps");

enum tcp_number {
	/* Ends that found the ring full. */
	TCP_LOST_RING_FULL,
	/* Connections whose socket could not be given storage (out of memory, or over net.core.optmem_max). */
	TCP_LOST_NO_STORAGE,
	/* The back-fill's pass, written by user space before each. */
	TCP_BACKFILL_PASS,
	TCP_NUMBERS,
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TCP_NUMBERS);
	__type(key, __u32);
	__type(value, __u64);
} tcp_numbers SEC(".maps");

/* What user space counts, kept here so that it outlives the process (`Loss` in losses.rs has the indices). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 32);
	__type(key, __u32);
	__type(value, __u64);
} user_losses SEC(".maps");

static __always_inline void count(__u32 number)
{
	__u64 *value = bpf_map_lookup_elem(&tcp_numbers, &number);
	if (value)
		__sync_fetch_and_add(value, 1);
}

static __always_inline bool is_mapped(const struct in6_addr *address)
{
	return address->in6_u.u6_addr32[0] == 0 && address->in6_u.u6_addr32[1] == 0 &&
	       address->in6_u.u6_addr32[2] == bpf_htonl(0xffff);
}

/* The tuple as the socket has it; at CLOSE skc_num is 0 already, inet_sport stays. */
static __always_inline void fill_tuple(struct row *row, const struct sock *sk, struct tcp_sock *tcp)
{
	row->protocol = IPPROTO_TCP;
	row->local_port = bpf_ntohs(tcp->inet_conn.icsk_inet.inet_sport);
	row->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	if (sk->__sk_common.skc_family == AF_INET6 && !is_mapped(&sk->__sk_common.skc_v6_daddr)) {
		row->family = AF_INET6;
		bpf_probe_read_kernel(row->local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_probe_read_kernel(row->remote, 16, &sk->__sk_common.skc_v6_daddr);
		return;
	}
	row->family = AF_INET;
	*(__u32 *)row->local = sk->__sk_common.skc_rcv_saddr;
	*(__u32 *)row->remote = sk->__sk_common.skc_daddr;
}

/* The kernel keeps eight times the mean and four times the deviation, and begins with a deviation that nobody measured. */
static __always_inline void fill_quality(struct row *row, struct tcp_sock *tcp)
{
	row->rtt_us = tcp->srtt_us >> 3;
	row->rtt_var_us = tcp->srtt_us ? tcp->mdev_us >> 2 : 0;
	row->lost = tcp->lost;
}

static __always_inline void fill_socket(struct row *row, const struct tcp_socket *socket)
{
	row->origin = socket->origin;
	row->start_ns = socket->start_ns;
	row->connect_latency_us = socket->connect_latency_us;
	row->generation = socket->generation;
	row->direction = socket->direction;
	row->certainty = socket->certainty;
}

static __always_inline struct tcp_socket *socket_of(const struct sock *sk)
{
	struct tcp_socket *socket =
		bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket)
		count(TCP_LOST_NO_STORAGE);
	return socket;
}
