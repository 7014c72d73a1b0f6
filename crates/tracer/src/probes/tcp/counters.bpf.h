/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * The kernel's own counters of a TCP socket, and what follows from them: payload sent and received, and who opened.
 *
 * Received: bytes_received counts payload accepted in order, and the peer's FIN; SOCK_DONE says that the FIN came.
 *
 * Sent: what left at least once is how far the sequence numbers came. bytes_acked rises with snd_una, so
 *     sequence = bytes_acked + (snd_nxt - snd_una)
 * is everything that took up sequence numbers and left: payload, our FIN (from FIN_WAIT1, CLOSING or LAST_ACK on, once
 * snd_nxt has reached write_seq), and the SYN on the side that opened: there snd_una begins at the SYN's own number, while
 * an accepted socket begins behind it. So
 *     sent = sequence - FIN - (1 if we opened)
 * bytes_sent - bytes_retrans is the same number as long as every transmission got past the host: a segment that the
 * host's own firewall or queue refused is counted in bytes_sent at every try, but never in bytes_retrans.
 *
 * Who opened: sequence - FIN - (bytes_sent - bytes_retrans) is 1 where we opened and 0 where we accepted. Where a refused
 * segment made it something else, the backlog tells: an accepted socket is a copy of its listener, which has one.
 */
#pragma once
#include "../kernel_types.h"
#include "../row.bpf.h"

struct counters {
	__u64 acked;
	__u64 received;
	__u64 sent;
	__u64 again;
	__u32 next;
	__u32 unacknowledged;
	__u32 written;
	__u32 retransmits;
	__u8 state;
	__u8 done;
};

/* Under the socket's lock this is one moment. A retransmission raises bytes_retrans before bytes_sent and an
 * acknowledgement bytes_acked before snd_una, so without the lock the subtrahends are read last. */
static __always_inline void read_counters(struct tcp_sock *tcp, const struct sock *sk, __u8 state, struct counters *out)
{
	out->state = state;
	out->received = *(volatile __u64 *)&tcp->bytes_received;
	out->sent = *(volatile __u64 *)&tcp->bytes_sent;
	out->next = *(volatile __u32 *)&tcp->snd_nxt;
	out->acked = *(volatile __u64 *)&tcp->bytes_acked;
	out->unacknowledged = *(volatile __u32 *)&tcp->snd_una;
	out->written = *(volatile __u32 *)&tcp->write_seq;
	out->again = *(volatile __u64 *)&tcp->bytes_retrans;
	out->done = (*(volatile unsigned long *)&sk->__sk_common.skc_flags >> SOCK_DONE_BIT) & 1;
	out->retransmits = tcp->total_retrans;
}

/* Whether somebody works on the socket right now; true where this kernel's lock looks different. */
static __always_inline bool is_busy(const struct sock *sk)
{
	if (!bpf_core_field_exists(sk->sk_lock.slock.rlock.raw_lock.val.counter))
		return true;
	return sk->sk_lock.owned || sk->sk_lock.slock.rlock.raw_lock.val.counter;
}

/* Without the lock. True when it is one moment all the same: nobody held the lock between two readings that agree, and
 * what a first reading had caught half done, the second one shows done. */
static __always_inline bool read_settled(struct tcp_sock *tcp, const struct sock *sk, struct counters *out)
{
	struct counters twin;

	for (int attempt = 0; attempt < 8; attempt++) {
		read_counters(tcp, sk, sk->__sk_common.skc_state, out);
		if (is_busy(sk))
			continue;
		read_counters(tcp, sk, sk->__sk_common.skc_state, &twin);
		if (out->acked == twin.acked && out->received == twin.received && out->sent == twin.sent &&
		    out->again == twin.again && out->next == twin.next && out->unacknowledged == twin.unacknowledged &&
		    out->written == twin.written && out->state == twin.state && out->done == twin.done)
			return true;
	}
	return false;
}

static __always_inline __u64 minus(__u64 left, __u64 right)
{
	return left > right ? left - right : 0;
}

/* Payload and SYN that left at least once. */
static __always_inline __u64 sequence_of(const struct counters *counters)
{
	__u64 sequence = counters->acked + (__u32)(counters->next - counters->unacknowledged);
	__u64 fin = 0;

	if (counters->state == TCP_FIN_WAIT2 || counters->state == TCP_TIME_WAIT)
		fin = 1;
	else if (counters->state == TCP_FIN_WAIT1 || counters->state == TCP_CLOSING || counters->state == TCP_LAST_ACK)
		fin = counters->next == counters->written;
	return minus(sequence, fin);
}

static __always_inline __u64 sent_of(const struct counters *counters, __u8 direction)
{
	/* Before the SYN has left, snd_una and snd_nxt may still be those of the socket's last connection. */
	if (direction == DIRECTION_UNKNOWN || counters->state == TCP_SYN_SENT)
		return minus(counters->sent, counters->again);
	return minus(sequence_of(counters), direction == DIRECTION_OUTGOING);
}

/* Of a socket that never rested: at most too low. */
static __always_inline __u64 sent_at_least(const struct counters *counters, __u8 direction)
{
	__u64 sent = minus(counters->sent, counters->again);
	__u64 sequence = minus(counters->acked + (__u32)(counters->next - counters->unacknowledged), 2);

	if (counters->state == TCP_SYN_SENT)
		return 0;
	return direction == DIRECTION_UNKNOWN || sent < sequence ? sent : sequence;
}

static __always_inline __u64 recv_of(const struct counters *counters)
{
	return minus(counters->received, counters->done);
}

static __always_inline __u64 recv_at_least(const struct counters *counters)
{
	return minus(counters->received, 1);
}

static __always_inline __u8 infer_direction(const struct counters *counters, const struct sock *sk)
{
	__u64 sequence = sequence_of(counters), payload = minus(counters->sent, counters->again);

	if (counters->state == TCP_SYN_SENT)
		return DIRECTION_OUTGOING;
	if (sequence == payload + 1)
		return DIRECTION_OUTGOING;
	if (sequence == payload)
		return DIRECTION_INCOMING;
	return sk->sk_max_ack_backlog ? DIRECTION_INCOMING : DIRECTION_OUTGOING;
}
