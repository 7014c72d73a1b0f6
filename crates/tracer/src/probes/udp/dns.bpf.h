/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * DNS over UDP, as clients see it: queries on their way out to port 53, answers on their way in from it.
 *
 * Called by the UDP programs, which have parsed the datagram; switched off, nothing of it is in them. Yields the
 * beginning of each message with its socket's owner in the ring `dns_messages`. Nothing is judged here: a message's form
 * is user space's business.
 */
#pragma once
#include "datagram.bpf.h"

#define DNS_PORT 53
/* Most messages are short; an answer without EDNS has at most 512 bytes (RFC 1035 4.2.1). What is beyond stays behind:
 * the question and the first addresses are at the beginning. Powers of two, so that a mask bounds a length. */
#define DNS_SHORT 128
#define DNS_LONG 512

struct dns_message {
	struct origin origin;
	__u64 cookie;
	__u64 at_ns;
	__u8 local[16];
	__u8 remote[16];
	__u16 local_port;
	__u16 family;
	/* The message's bytes, and how many of them follow. */
	__u16 length;
	__u16 captured;
	__u8 outgoing;
	__u8 pad[7];
};
_Static_assert(sizeof(struct dns_message) == 112, "probes/udp/dns.rs has the same");

/* Its size is set before loading (probes/setup.rs). */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} dns_messages SEC(".maps");

enum dns_number {
	/* Messages that found the ring full. */
	DNS_RING_FULL,
	/* Messages behind the first one of a buffer with many (UDP_SEGMENT, GRO). */
	DNS_SEGMENTED,
	/* Queries that user space holds and no client has acknowledged; written by user space. */
	DNS_HELD,
	DNS_NUMBERS,
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DNS_NUMBERS);
	__type(key, __u32);
	__type(value, __u64);
} dns_numbers SEC(".maps");

static __always_inline void dns_add(__u32 number, __u64 by)
{
	__u64 *value = bpf_map_lookup_elem(&dns_numbers, &number);
	if (value)
		__sync_fetch_and_add(value, by);
}

static __always_inline bool is_dns(const struct udp_header *udp, bool outgoing)
{
	return (outgoing ? udp->destination : udp->source) == bpf_htons(DNS_PORT);
}

/* Copies at most `room` bytes of the payload behind `message`. */
static __always_inline void dns_capture(struct __sk_buff *skb, struct dns_message *message, __u32 offset,
					const __u64 room)
{
	__u64 last = message->length < room ? message->length - 1 : room - 1;

	/* The compiler knows already that the mask changes nothing; the verifier needs to see it. */
	asm volatile("" : "+r"(last));
	last &= room - 1;
	message->captured = last + 1;
	if (bpf_skb_load_bytes(skb, offset, message + 1, last + 1))
		message->captured = 0;
}

static __always_inline void dns_fill(struct __sk_buff *skb, struct bpf_sock *sk, const struct udp_key *key, bool outgoing,
				     __u16 length, struct dns_message *message)
{
	struct udp_socket *socket = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);

	if (socket)
		message->origin = socket->origin;
	else
		__builtin_memset(&message->origin, 0, sizeof(message->origin));
	message->cookie = bpf_get_socket_cookie(skb);
	message->at_ns = bpf_ktime_get_ns();
	__builtin_memcpy(message->local, key->local, 16);
	__builtin_memcpy(message->remote, key->remote, 16);
	message->local_port = key->local_port;
	message->family = key->family;
	message->length = length;
	message->outgoing = outgoing;
	__builtin_memset(message->pad, 0, sizeof(message->pad));
}

static __always_inline void dns(struct __sk_buff *skb, struct bpf_sock *sk, const struct udp_key *key, bool outgoing,
				__u32 length, __u32 payload_at)
{
	struct dns_message *message;

	if (skb->gso_size && length > skb->gso_size) {
		dns_add(DNS_SEGMENTED, (length - 1) / skb->gso_size);
		length = skb->gso_size;
	}
	if (!length || length > 0xffff)
		return;
	if (length <= DNS_SHORT) {
		message = bpf_ringbuf_reserve(&dns_messages, sizeof(*message) + DNS_SHORT, 0);
		if (message) {
			dns_fill(skb, sk, key, outgoing, length, message);
			dns_capture(skb, message, payload_at, DNS_SHORT);
		}
	} else {
		message = bpf_ringbuf_reserve(&dns_messages, sizeof(*message) + DNS_LONG, 0);
		if (message) {
			dns_fill(skb, sk, key, outgoing, length, message);
			dns_capture(skb, message, payload_at, DNS_LONG);
		}
	}
	if (message)
		bpf_ringbuf_submit(message, BPF_RB_NO_WAKEUP);
	else
		dns_add(DNS_RING_FULL, 1);
}
