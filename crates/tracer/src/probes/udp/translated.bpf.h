/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * A datagram's ends as its socket has them, on its way out. The egress program runs behind the node's own address
 * translation (a Service called from the host's network, an answer of a server there), the ingress program in front of
 * the socket: without this, what one exchange sends and what it receives had different ends.
 *
 * Only a datagram that is not its socket's main flow's comes here. The cached comparison needs nothing of this: while
 * conntrack knows a flow, no other one of this socket is given its ends by a translation.
 */
#pragma once
#include "flows.bpf.h"

/* Linux 6.2 or newer: the kernel's own view of the context. The verifier puts a plain move in its place. */
extern void *bpf_cast_to_kern_ctx(void *context) __ksym __weak;

/* include/linux/skbuff.h: the low bits of sk_buff::_nfct say what the packet is to its connection. */
#define NFCT_INFO_MASK 7UL
/* include/uapi/linux/netfilter/nf_conntrack_common.h */
#define IP_CT_IS_REPLY 3
#define IPS_NAT_MASK 0x30

/* What packets of one direction look like before anything is translated. */
static __always_inline void take_tuple(const struct nf_conntrack_tuple *tuple, struct udp_key *key)
{
	__be16 source = 0, destination = 0;
	__u16 family = 0;

	bpf_core_read(&family, sizeof(family), &tuple->src.l3num);
	if (family != key->family || bpf_core_read(&source, sizeof(source), &tuple->src.u.all) ||
	    bpf_core_read(&destination, sizeof(destination), &tuple->dst.u.all))
		return;
	if (family == AF_INET) {
		bpf_core_read(key->local, 4, &tuple->src.u3);
		bpf_core_read(key->remote, 4, &tuple->dst.u3);
	} else {
		bpf_core_read(key->local, 16, &tuple->src.u3);
		bpf_core_read(key->remote, 16, &tuple->dst.u3);
	}
	key->local_port = bpf_ntohs(source);
	key->remote_port = bpf_ntohs(destination);
}

/* Exact, for every socket. */
static __always_inline void take_tracked(unsigned long tracked, struct udp_key *key)
{
	struct nf_conn *connection = (void *)(tracked & ~NFCT_INFO_MASK);
	unsigned long status = 0;

	bpf_core_read(&status, sizeof(status), &connection->status);
	if (!(status & IPS_NAT_MASK))
		return;
	if ((tracked & NFCT_INFO_MASK) >= IP_CT_IS_REPLY)
		take_tuple(__builtin_preserve_access_index(&connection->tuplehash[1].tuple), key);
	else
		take_tuple(__builtin_preserve_access_index(&connection->tuplehash[0].tuple), key);
}

/* Where the kernel does not show its tracking: a connected socket knows its peer. That it may have named another one for
 * this datagram is seldom, and then taken for a translation. */
static __always_inline void take_connected(struct bpf_sock *sk, struct udp_key *key)
{
	__u32 *local = (void *)key->local, *remote = (void *)key->remote;

	if (!sk->dst_port)
		return;
	if (key->family == AF_INET) {
		/* Set for an IPv6 socket with an IPv4 peer, too. */
		local[0] = sk->src_ip4;
		remote[0] = sk->dst_ip4;
	} else {
		local[0] = sk->src_ip6[0];
		local[1] = sk->src_ip6[1];
		local[2] = sk->src_ip6[2];
		local[3] = sk->src_ip6[3];
		remote[0] = sk->dst_ip6[0];
		remote[1] = sk->dst_ip6[1];
		remote[2] = sk->dst_ip6[2];
		remote[3] = sk->dst_ip6[3];
	}
	key->local_port = sk->src_port;
	key->remote_port = bpf_ntohs(sk->dst_port);
}

static __always_inline void take_socket_view(struct __sk_buff *skb, struct bpf_sock *sk, struct udp_key *key)
{
	/* A kernel that tracks nothing translates nothing. */
	if (!bpf_core_field_exists(struct sk_buff, _nfct))
		return;
	if (bpf_ksym_exists(bpf_cast_to_kern_ctx)) {
		struct sk_buff *packet = bpf_cast_to_kern_ctx(skb);
		unsigned long tracked = packet->_nfct;

		if (!(tracked & ~NFCT_INFO_MASK))
			return;
		/* Tracking may be a module whose types are not known. */
		if (bpf_core_type_exists(struct nf_conn)) {
			take_tracked(tracked, key);
			return;
		}
	}
	take_connected(sk, key);
}
