/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * Where UDP bytes are counted. A socket's main flow, its first peer, lives in the socket's own storage: the usual datagram
 * costs one look there. Further peers live in the hash `udp_flows`. Sockets whose owner is not known yet, and those of
 * the kernel itself, use the hash only: it needs no end of the socket to give its bytes up.
 *
 * A key is in one of both at a time. The main flow's states:
 *   NONE ─claim─▶ LIVES ─idle, in one pass─▶ ENDING ─still, in the next─▶ TAKEN ─told─▶ NONE
 *                   ▲────────a datagram────────┘
 *   LIVES, ENDING ─the socket's end─▶ TAKEN, for good
 * Between ENDING and TAKEN lies a whole pause between two passes, so no program that saw LIVES still adds. A socket's end
 * does not wait: what arrives in the nanoseconds of its close, and nobody will read, may be left out.
 */
#pragma once
#include "../kernel_types.h"
#include "../row.bpf.h"
#include "../settings.bpf.h"

/* struct udp_flow::flags, as in struct row: the flow stands for every peer beyond the cap. */
#define OTHER_PEER 1

/* Must be called so: the verifier knows it by its name. */
struct bpf_spin_lock {
	__u32 val;
};

struct udp_key {
	__u64 cookie;
	__u8 local[16];
	__u8 remote[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 family;
	__u16 pad;
};
_Static_assert(sizeof(struct udp_key) == 48, "probes/udp/flows.rs has the same");

struct udp_flow {
	struct origin origin;
	__u64 start_ns;
	__u64 last_ns;
	__u64 sent;
	__u64 recv;
	/* The part of `recv` that found the receive queue full. */
	__u64 dropped;
	__u8 direction;
	__u8 certainty;
	__u8 flags;
	__u8 pad[5];
};
_Static_assert(sizeof(struct udp_flow) == 96, "probes/udp/flows.rs has the same");

struct udp_gone {
	/* The only hashed flow's key, if `hashed` is 1. */
	struct udp_key key;
	__u64 at_ns;
	/* Flows this socket ever had in the hash. */
	__u64 hashed;
};
_Static_assert(sizeof(struct udp_gone) == 64, "probes/udp/flows.rs has the same");

enum { MAIN_NONE, MAIN_LIVES, MAIN_ENDING, MAIN_TAKEN };

struct udp_main {
	struct udp_key key;
	__u64 sent;
	__u64 recv;
	__u64 dropped;
	__u64 start_ns;
	/* As the walks saw it: the totals last time, and when they had last changed. A datagram reads no clock. */
	__u64 changed_ns;
	__u64 seen_sent;
	__u64 seen_recv;
	__u32 state;
	__u8 direction;
	__u8 certainty;
	__u16 pad;
};

struct udp_socket {
	struct udp_main main;
	struct origin origin;
	/* The first hashed flow's key. */
	struct udp_key first;
	/* Flows that live, the main one included (hashed ones that expired are in `udp_expired`). */
	__u32 flows;
	__u32 hashed;
	__u32 confirmed_pass;
	/* Held while a main flow is claimed. */
	struct bpf_spin_lock lock;
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

/* A plain, preallocated hash: what is full says so and is counted; an LRU would forget bytes silently. The sizes of this
 * map and of the rings are set before loading (probes/setup.rs). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct udp_key);
	__type(value, struct udp_flow);
} udp_flows SEC(".maps");

/* Hashed flows that expired, by socket, so that a long-lived server gets its room back. Only user space writes it, and an
 * entry that is forgotten only sends new peers to `other` earlier. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, __u64);
} udp_expired SEC(".maps");

/* Main flows of sockets that are gone, as rows. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} udp_closed SEC(".maps");

/* Main flows that live or, in a pass that ends idle ones, those; as rows. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} udp_live SEC(".maps");

/* Sockets that are gone and had flows in the hash. */
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
	/* Sockets whose end found a ring full: their flows end by expiry instead. */
	UDP_GONE_RING_FULL,
	/* Datagrams of sockets that could not be given storage: not counted. */
	UDP_NO_STORAGE,
	/* Datagrams that the receiving application was too slow for: not received. */
	UDP_QUEUE_FULL,
	/* Flows made, main flows ended (both the kernel's) and hashed flows deleted (user space's): the difference lives. */
	UDP_FLOWS_MADE,
	UDP_MAINS_ENDED,
	UDP_FLOWS_DELETED,
	/* The back-fill's pass, written by user space before each. */
	UDP_BACKFILL_PASS,
	/* A walk ends main flows that have not changed since then; 0: it tells those that live. */
	UDP_IDLE_SINCE,
	UDP_NO_STORAGE_BYTES,
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

static __always_inline bool is_same_key(const struct udp_key *left, const struct udp_key *right)
{
	const __u64 *one = (const void *)left, *other = (const void *)right;
	return one[1] == other[1] && one[2] == other[2] && one[3] == other[3] && one[4] == other[4] && one[5] == other[5];
}

/* Whether the key is the main flow's, which a datagram of its own brings back from ending. */
static __always_inline bool is_main(struct udp_main *main, const struct udp_key *key)
{
	if (!is_same_key(&main->key, key))
		return false;
	if (main->state == MAIN_ENDING)
		__sync_val_compare_and_swap(&main->state, MAIN_ENDING, MAIN_LIVES);
	return main->state == MAIN_LIVES;
}

static __always_inline void to_other(struct udp_key *key)
{
	__builtin_memset(key->local, 0, 16);
	__builtin_memset(key->remote, 0, 16);
	key->remote_port = 0;
}

static __always_inline bool has_room(struct udp_socket *socket, __u64 cookie)
{
	if (number_of(UDP_FLOWS_MADE) - number_of(UDP_FLOWS_DELETED) - number_of(UDP_MAINS_ENDED) >= settings.udp_flows_max)
		return false;
	if (socket->flows < settings.udp_peers_max)
		return true;
	__u64 *expired = bpf_map_lookup_elem(&udp_expired, &cookie);
	return socket->flows - (expired ? *expired : 0) < settings.udp_peers_max;
}

/* Makes the key the socket's main flow's, if it has none. */
static __always_inline bool claim_main(struct udp_socket *socket, const struct udp_key *key, bool outgoing, __u64 now)
{
	struct udp_main *main = &socket->main;
	bool is_free;

	bpf_spin_lock(&socket->lock);
	is_free = main->state == MAIN_NONE;
	if (is_free) {
		main->key = *key;
		main->start_ns = now;
		main->changed_ns = now;
		main->direction = outgoing ? DIRECTION_OUTGOING : DIRECTION_INCOMING;
		main->certainty = socket->from_birth ? CERTAINTY_KNOWN : CERTAINTY_INFERRED;
		main->state = MAIN_LIVES;
	}
	bpf_spin_unlock(&socket->lock);
	if (is_free) {
		add(UDP_FLOWS_MADE, 1);
		__sync_fetch_and_add(&socket->flows, 1);
		return true;
	}
	/* Another processor may have claimed it meanwhile for the same peer. */
	return is_main(main, key);
}

static __always_inline struct udp_flow *make_flow(struct udp_socket *socket, struct udp_key *key, bool outgoing,
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
		__sync_fetch_and_add(&socket->flows, 1);
		if (__sync_fetch_and_add(&socket->hashed, 1) == 0)
			socket->first = *key;
	}
	return bpf_map_lookup_elem(&udp_flows, key);
}

static __always_inline void fill_row(struct row *row, struct udp_socket *socket, __u64 at_ns)
{
	struct udp_main *main = &socket->main;
	__u64 received = main->recv, dropped = main->dropped;

	__builtin_memset(row, 0, sizeof(*row));
	/* A datagram that found no room is counted before it is taken back: a total that was seen never falls. */
	received = received > dropped ? received - dropped : 0;
	row->origin = socket->origin;
	row->cookie = main->key.cookie;
	row->start_ns = main->start_ns;
	row->at_ns = at_ns;
	row->sent = main->sent;
	row->recv = received > main->seen_recv ? received : main->seen_recv;
	__builtin_memcpy(row->local, main->key.local, 16);
	__builtin_memcpy(row->remote, main->key.remote, 16);
	row->local_port = main->key.local_port;
	row->remote_port = main->key.remote_port;
	row->family = main->key.family;
	row->direction = main->direction;
	row->certainty = main->certainty;
	row->protocol = IPPROTO_UDP;
}
