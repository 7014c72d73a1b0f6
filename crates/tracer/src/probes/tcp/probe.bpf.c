/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * TCP: every connection of every network namespace, IPv4 and IPv6, with the kernel's own byte counters.
 *
 * Traces: tp_btf/inet_sock_set_state (kernel 5.11 or newer with BTF), which runs under the socket's lock.
 * Walks:  iter/bpf_sk_storage_map for the connections that live, iter/task_file for those older than the tracer.
 * Yields: one `struct row` in the ring `tcp_closed` for each connection that ended, and, when user space reads the
 *         walk's iterator, one in the ring `tcp_live` for each that lives. Steady traffic costs nothing: no program
 *         runs on send or receive.
 *
 * counters.bpf.h has what is read from a socket, and why it is exact.
 *
 * The scope is decided where a socket's storage is made; a socket without storage is outside.
 */
#include "sockets.bpf.h"

static __always_inline void begin(struct tcp_socket *socket, __u8 direction, __u64 now)
{
	socket->start_ns = now;
	socket->syn_ns = 0;
	socket->changed_ns = now;
	socket->connect_latency_us = 0;
	socket->direction = direction;
	socket->certainty = CERTAINTY_KNOWN;
	socket->flags = IS_OPEN;
}

/* Whether the socket that the current task opens is to be traced. Where a kernel thread opens it (a subflow of MPTCP, a
 * mounted file system), the socket itself knows its cgroup. */
static __always_inline bool is_opener_in_scope(const struct sock *sk, struct task_struct *task, bool user)
{
	if (!is_scoped())
		return true;
	if (user)
		return is_task_in_scope(task);
	return bpf_core_field_exists(sk->sk_cgrp_data.cgroup) && is_cgroup_in_scope(sk->sk_cgrp_data.cgroup);
}

static __always_inline void opening(const struct sock *sk, __u64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	bool user = is_user_task(task);
	if (!is_opener_in_scope(sk, task, user))
		return;
	struct tcp_socket *socket = socket_of(sk);
	if (!socket)
		return;

	set_place(&socket->origin, sk, user ? task : NULL);
	if (user) {
		set_process(&socket->origin, task);
	} else {
		socket->origin.pid = 0;
		socket->origin.process_start = 0;
		socket->origin.comm[0] = 0;
	}
	begin(socket, DIRECTION_OUTGOING, now);
	socket->syn_ns = now;
}

static __always_inline void listening(const struct sock *sk)
{
	struct task_struct *task = bpf_get_current_task_btf();
	bool user = is_user_task(task);
	if (!is_opener_in_scope(sk, task, user))
		return;
	struct tcp_socket *socket = bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket)
		return;

	set_place(&socket->origin, sk, user ? task : NULL);
	if (user)
		set_process(&socket->origin, task);
	socket->flags = IS_LISTENER;
}

/* A child of a listener. Its storage is a copy of the listener's, owner included, unless the listener had none: then
 * that is outside the scope, where there is one. */
static __always_inline void accepting(const struct sock *sk, __u64 now)
{
	struct tcp_socket *socket =
		is_scoped() ? bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, 0) : socket_of(sk);
	if (!socket)
		return;
	if (!socket->origin.netns)
		set_place(&socket->origin, sk, NULL);
	socket->generation = 0;
	socket->told_generation = 0;
	socket->told_sent = 0;
	socket->told_recv = 0;
	socket->told_retransmits = 0;
	socket->confirmed_pass = 0;
	__u8 shared = socket->flags & IS_SHARED;
	begin(socket, DIRECTION_INCOMING, now);
	socket->flags |= shared;
}

static __always_inline void established(const struct sock *sk, __u8 from, __u64 now)
{
	struct tcp_socket *socket = bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, 0);
	if (!socket || !(socket->flags & IS_OPEN))
		return;
	if (socket->syn_ns && !socket->connect_latency_us) {
		__u64 latency_us = (now - socket->syn_ns) / 1000;
		/* A connect on loopback can take less than a microsecond; 0 means unknown. */
		socket->connect_latency_us = latency_us ? latency_us : 1;
	}
	if (from == TCP_SYN_RECV && socket->direction == DIRECTION_INCOMING)
		socket->start_ns = now;
}

/* The current task works on the socket, so it is its owner. */
static __always_inline void set_owner(struct tcp_socket *socket)
{
	struct task_struct *task = bpf_get_current_task_btf();
	if (!is_user_task(task))
		return;
	if (socket->origin.pid != task->tgid)
		set_process(&socket->origin, task);
	/* No pass has this number. */
	socket->confirmed_pass = 1;
}

/* Our FIN: by close or shutdown, in the task that does it. */
static __always_inline void closing(const struct sock *sk)
{
	struct tcp_socket *socket = bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, 0);
	if (socket)
		set_owner(socket);
}

/* An end without a FIN runs in the task that caused it if that holds the lock as a task does, else in whatever a soft
 * interrupt met. Who destroys other people's sockets (`ss -K`) leaves ECONNABORTED. */
static __always_inline bool is_ended_by_owner(const struct sock *sk)
{
	return sk->sk_lock.owned && sk->sk_err != ECONNABORTED;
}

static __always_inline void closed(const struct sock *sk, __u8 from, __u64 now)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock((void *)sk);
	struct tcp_socket *socket = bpf_sk_storage_get(&tcp_sockets, (void *)sk, 0, 0);
	struct counters counters;
	struct row *row;

	/* tcp_done runs on sockets that have ended already, too. */
	if (!tcp || from == TCP_CLOSE || (is_scoped() && !socket))
		return;
	if (from == TCP_LISTEN) {
		if (socket)
			socket->flags = 0;
		return;
	}
	read_counters(tcp, sk, from, &counters);
	__u8 direction = socket && (socket->flags & IS_OPEN) ? socket->direction : DIRECTION_UNKNOWN;
	if (!direction)
		direction = infer_direction(&counters, sk);
	__u64 sent = sent_of(&counters, direction), recv = recv_of(&counters);
	/* A child that the accept queue had no room for never was a connection; its request makes another one. */
	if (from == TCP_SYN_RECV && !sent && !recv)
		goto end;

	row = bpf_ringbuf_reserve(&tcp_closed, sizeof(*row), 0);
	if (!row) {
		count(TCP_LOST_RING_FULL);
		goto end;
	}
	__builtin_memset(row, 0, sizeof(*row));
	if (socket && (socket->flags & IS_OPEN)) {
		if (is_ended_by_owner(sk))
			set_owner(socket);
		fill_socket(row, socket);
	} else {
		set_place(&row->origin, sk, NULL);
		row->generation = socket ? socket->generation : 0;
	}
	row->direction = direction;
	if (!row->certainty)
		row->certainty = CERTAINTY_INFERRED;
	fill_tuple(row, sk, tcp);
	row->cookie = bpf_get_socket_cookie((void *)sk);
	row->at_ns = now;
	row->sent = sent;
	row->recv = recv;
	row->retransmits = counters.retransmits;
	fill_quality(row, tcp);
	row->error = sk->sk_err;
	row->state = from;
	row->shutdown = sk->sk_shutdown;
	bpf_ringbuf_submit(row, BPF_RB_NO_WAKEUP);
end:
	/* Only after the record is out: a walk that finds the connection no more finds its record. */
	if (socket) {
		socket->flags = 0;
		socket->generation++;
		socket->confirmed_pass = 0;
	}
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(weir_tcp_state, const struct sock *sk, int from, int to)
{
	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	/* Half of the changes need no time, and reading the clock is not free. */
	switch (to) {
	case TCP_SYN_SENT:
		opening(sk, bpf_ktime_get_ns());
		break;
	case TCP_LISTEN:
		listening(sk);
		break;
	case TCP_SYN_RECV:
		if (from == TCP_LISTEN)
			accepting(sk, bpf_ktime_get_ns());
		break;
	case TCP_ESTABLISHED:
		established(sk, from, bpf_ktime_get_ns());
		break;
	case TCP_FIN_WAIT1:
		if (from == TCP_ESTABLISHED)
			closing(sk);
		break;
	case TCP_LAST_ACK:
		if (from == TCP_CLOSE_WAIT)
			closing(sk);
		break;
	case TCP_CLOSE:
		closed(sk, from, bpf_ktime_get_ns());
		break;
	}
	return 0;
}

SEC("iter/bpf_sk_storage_map")
int weir_tcp_walk(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct tcp_socket *socket = ctx->value;
	struct counters counters;
	struct tcp_sock *tcp;
	struct row *row;
	__u32 generation;
	__u8 state;

	if (!sk || !socket || !(socket->flags & IS_OPEN))
		return 0;
	state = sk->__sk_common.skc_state;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || state == TCP_CLOSE)
		return 0;
	generation = *(volatile __u32 *)&socket->generation;

	/* No room: 1 asks for this socket again, after user space has emptied the ring. */
	row = bpf_ringbuf_reserve(&tcp_live, sizeof(*row), 0);
	if (!row)
		return 1;
	__builtin_memset(row, 0, sizeof(*row));
	bool settled = read_settled(tcp, sk, &counters);
	if (settled && !socket->direction) {
		socket->direction = infer_direction(&counters, sk);
		socket->certainty = CERTAINTY_INFERRED;
	}
	__u64 sent = settled ? sent_of(&counters, socket->direction) : sent_at_least(&counters, socket->direction);
	__u64 recv = settled ? recv_of(&counters) : recv_at_least(&counters);
	__u32 retransmits = counters.retransmits;
	fill_socket(row, socket);
	if ((socket->flags & IS_SHARED) && !socket->confirmed_pass)
		row->flags = OWNER_UNSURE;
	fill_tuple(row, sk, tcp);
	/* A connect that has not got its port yet; and one that ended meanwhile: its record is out, and what was read
	 * here may be the next one's. */
	if (!row->local_port || !(*(volatile __u8 *)&socket->flags & IS_OPEN) || *(volatile __u32 *)&socket->generation != generation) {
		bpf_ringbuf_discard(row, BPF_RB_NO_WAKEUP);
		return 0;
	}
	if (socket->told_generation != generation) {
		socket->told_generation = generation;
		socket->told_sent = 0;
		socket->told_recv = 0;
		socket->told_retransmits = 0;
		socket->changed_ns = 0;
	}
	if (sent < socket->told_sent)
		sent = socket->told_sent;
	if (recv < socket->told_recv)
		recv = socket->told_recv;
	if (retransmits < socket->told_retransmits)
		retransmits = socket->told_retransmits;
	if (!socket->changed_ns || sent != socket->told_sent || recv != socket->told_recv ||
	    retransmits != socket->told_retransmits)
		socket->changed_ns = bpf_ktime_get_ns();
	socket->told_sent = sent;
	socket->told_recv = recv;
	socket->told_retransmits = retransmits;

	row->cookie = bpf_get_socket_cookie(sk);
	row->at_ns = socket->changed_ns;
	row->sent = sent;
	row->recv = recv;
	row->retransmits = retransmits;
	fill_quality(row, tcp);
	row->state = state;
	row->shutdown = sk->sk_shutdown;
	bpf_ringbuf_submit(row, BPF_RB_NO_WAKEUP);
	return 0;
}

/* Back-fill comes in pairs of passes: an even one confirms the owners that hold their socket's file, the odd one after
 * it gives the sockets that were not confirmed to a task that does. So a parent that accepted and handed over loses the
 * socket to its child, and two that share one do not take turns. */
SEC("iter/task_file")
int weir_tcp_fill(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct tcp_socket *socket;
	struct counters counters;
	struct tcp_sock *tcp;
	struct socket *sock;
	struct sock *sk;
	__u32 key = TCP_BACKFILL_PASS, pass;
	__u64 *number;
	__u8 state;

	if (!task || !file)
		return 0;
	sock = bpf_sock_from_file(file);
	if (!sock)
		return 0;
	sk = sock->sk;
	if (!sk || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6)
		return 0;
	state = sk->__sk_common.skc_state;
	if (state == TCP_CLOSE || !is_task_in_scope(task))
		return 0;
	number = bpf_map_lookup_elem(&tcp_numbers, &key);
	if (!number)
		return 0;
	pass = *number;

	socket = bpf_sk_storage_get(&tcp_sockets, sk, 0, 0);
	if (socket && socket->flags) {
		if (state == TCP_LISTEN && socket->origin.pid != task->tgid)
			socket->flags |= IS_SHARED;
		if (socket->origin.pid == task->tgid) {
			/* Its name may have changed by execve. */
			set_process(&socket->origin, task);
			socket->confirmed_pass = pass;
		} else if ((pass & 1) && socket->confirmed_pass != pass - 1 && socket->confirmed_pass != pass) {
			set_process(&socket->origin, task);
			if (socket->origin.cgroup_id <= ROOT_CGROUP_ID && !socket->origin.v1_cgroup)
				set_cgroup(&socket->origin, socket->origin.cgroup_id, task);
			socket->confirmed_pass = pass;
		}
		return 0;
	}
	tcp = bpf_skc_to_tcp_sock(sk);
	socket = tcp ? bpf_sk_storage_get(&tcp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
	/* Older than the probe: counted in the first pair of passes, once. */
	if (tcp && !socket && pass == 3 && state != TCP_LISTEN)
		count(TCP_LOST_NO_STORAGE);
	if (!socket || socket->flags)
		return 0;
	set_place(&socket->origin, sk, task);
	set_process(&socket->origin, task);
	socket->confirmed_pass = pass;
	if (state == TCP_LISTEN) {
		socket->flags = IS_LISTENER;
		return 0;
	}
	socket->start_ns = 0;
	socket->syn_ns = 0;
	socket->connect_latency_us = 0;
	/* A socket that never rests says it to the walk, or at its end. */
	socket->direction =
		read_settled(tcp, sk, &counters) ? infer_direction(&counters, sk) : DIRECTION_UNKNOWN;
	socket->certainty = socket->direction ? CERTAINTY_INFERRED : CERTAINTY_UNKNOWN;
	socket->flags = IS_OPEN;
	/* It closed meanwhile, unseen because it had no storage then. */
	if (sk->__sk_common.skc_state == TCP_CLOSE)
		socket->flags = 0;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
