/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * What a datagram's headers say. Offset 0 is the network header on both ways; an IPv4 packet on an IPv6 socket is IPv4.
 */
#pragma once
#include "flows.bpf.h"

struct ipv4_header {
	__u8 version_and_length;
	__u8 service;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 time_to_live;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};

struct ipv6_header {
	__be32 version_class_flow;
	__be16 length;
	__u8 next;
	__u8 hop_limit;
	__u64 source[2];
	__u64 destination[2];
};

struct udp_header {
	__be16 source;
	__be16 destination;
	__be16 length;
	__be16 checksum;
};

/* Many datagrams in one buffer (UDP_SEGMENT, GRO) carry one header before they are cut: all that follows it is payload.
 * A single one says its own length. Longer than the buffer: no datagram. */
static __always_inline __u32 payload_of(struct __sk_buff *skb, __u32 offset, __be16 length)
{
	if (skb->gso_size || !length)
		return skb->len - offset - sizeof(struct udp_header);
	return bpf_ntohs(length) - sizeof(struct udp_header);
}

static __always_inline bool is_extension(__u8 next)
{
	/* Hop-by-hop, routing, fragment, destination options. */
	return next == 0 || next == 43 || next == 44 || next == 60;
}

/* Headers of any shape, copied out. `key` must be zero and keeps its cookie. The payload begins at `payload_at`. */
static __always_inline bool parse(struct __sk_buff *skb, bool outgoing, struct udp_key *key, __u32 *payload,
				  __u32 *payload_at)
{
	struct udp_header udp;
	__u32 offset;

	if (skb->protocol == bpf_htons(0x0800)) {
		struct ipv4_header ip;
		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.protocol != IPPROTO_UDP)
			return false;
		key->family = AF_INET;
		__builtin_memcpy(key->local, outgoing ? &ip.source : &ip.destination, 4);
		__builtin_memcpy(key->remote, outgoing ? &ip.destination : &ip.source, 4);
		offset = (ip.version_and_length & 15) * 4;
	} else if (skb->protocol == bpf_htons(0x86dd)) {
		struct ipv6_header ip;
		__u8 next;
		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return false;
		key->family = AF_INET6;
		__builtin_memcpy(key->local, outgoing ? ip.source : ip.destination, 16);
		__builtin_memcpy(key->remote, outgoing ? ip.destination : ip.source, 16);
		next = ip.next;
		offset = sizeof(ip);
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
	if (bpf_skb_load_bytes(skb, offset, &udp, sizeof(udp)))
		return false;
	key->local_port = bpf_ntohs(outgoing ? udp.source : udp.destination);
	key->remote_port = bpf_ntohs(outgoing ? udp.destination : udp.source);
	*payload = payload_of(skb, offset, udp.length);
	*payload_at = offset + sizeof(udp);
	return *payload <= skb->len;
}

static __always_inline bool has_ports(const struct udp_key *key, const struct udp_header *udp, bool outgoing)
{
	return key->local_port == bpf_ntohs(outgoing ? udp->source : udp->destination) &&
	       key->remote_port == bpf_ntohs(outgoing ? udp->destination : udp->source);
}

static __always_inline bool has_ends_v4(const struct udp_key *key, const struct ipv4_header *ip, bool outgoing)
{
	return key->family == AF_INET && *(const __u32 *)key->local == (outgoing ? ip->source : ip->destination) &&
	       *(const __u32 *)key->remote == (outgoing ? ip->destination : ip->source);
}

static __always_inline bool has_ends_v6(const struct udp_key *key, const struct ipv6_header *ip, bool outgoing)
{
	const __u64 *local = outgoing ? ip->source : ip->destination, *remote = outgoing ? ip->destination : ip->source;
	const __u64 *own = (const void *)key->local, *other = (const void *)key->remote;
	return key->family == AF_INET6 && own[0] == local[0] && own[1] == local[1] && other[0] == remote[0] &&
	       other[1] == remote[1];
}
