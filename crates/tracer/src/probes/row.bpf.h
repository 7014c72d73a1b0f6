/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * One connection, living or ended, as it leaves the kernel. `Row` in probes/layout.rs is the same bytes.
 */
#pragma once
#include "origin.bpf.h"

enum { DIRECTION_UNKNOWN, DIRECTION_INCOMING, DIRECTION_OUTGOING };
enum { CERTAINTY_UNKNOWN, CERTAINTY_KNOWN, CERTAINTY_INFERRED };

/* struct row::flags, beside those of UDP: whoever accepted may be another process than the listener's. */
#define OWNER_UNSURE 16

struct row {
	struct origin origin;
	__u64 cookie;
	/* All times CLOCK_MONOTONIC; 0 unknown. */
	__u64 start_ns;
	/* Living: when the totals last changed, as the walks saw it. Ended: when it ended. */
	__u64 at_ns;
	__u64 sent;
	__u64 recv;
	__u32 retransmits;
	__u32 rtt_us;
	__u32 rtt_var_us;
	__u32 lost;
	__u32 connect_latency_us;
	__u32 generation;
	/* IPv4 in the first four bytes; mapped addresses come unmapped. Ports in host order. */
	__u8 local[16];
	__u8 remote[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 family;
	__u16 error;
	/* Living: the state. Ended: the state before CLOSE. */
	__u8 state;
	__u8 shutdown;
	__u8 direction;
	__u8 certainty;
	__u8 protocol;
	__u8 flags;
	__u16 pad;
};
_Static_assert(sizeof(struct row) == 160, "probes/layout.rs has the same");
