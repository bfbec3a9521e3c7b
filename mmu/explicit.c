/* SPDX-License-Identifier: MIT */
/*
 * The explicit back end. A page is protected by being older than the current epoch, which its
 * writers test when they open a bracket; so protecting every page is the same as counting the epoch
 * up, and a cut costs the same whatever was written.
 */
#include "mmu/mmu.h"

static const struct mmu_ops explicit_ops = { .name = "explicit" };

struct mmu mmu_explicit = { .ops = &explicit_ops };
