/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bodies that attract each other, for bench/soft; prints their energy at the end, which tells whether the
 * processor computed right. Each position is a vector of four, which the compiler makes into instructions of
 * SSE2 or of AVX2 (with FMA): the program is built once for each. usage: nbody STEPS
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define BODIES 8
#define STEP   1e-3

typedef double vec4 __attribute__((vector_size(32)));
typedef long index4 __attribute__((vector_size(32)));

static vec4 place[BODIES], speed[BODIES];
static double mass[BODIES];

/* The sum of the four, in each of them. */
static inline vec4 spread_sum(vec4 v)
{
    v += __builtin_shuffle(v, (index4){1, 0, 3, 2});
    return v + __builtin_shuffle(v, (index4){2, 3, 0, 1});
}

static void advance(void)
{
    for (int i = 0; i < BODIES; i++) {
        for (int j = i + 1; j < BODIES; j++) {
            vec4 d = place[i] - place[j], square = spread_sum(d * d) + 1e-4;
            vec4 pull = STEP / (square * sqrt(square[0]));
            speed[i] -= d * pull * mass[j];
            speed[j] += d * pull * mass[i];
        }
    }
    for (int i = 0; i < BODIES; i++)
        place[i] += speed[i] * STEP;
}

static double energy(void)
{
    double sum = 0;

    for (int i = 0; i < BODIES; i++) {
        sum += mass[i] * spread_sum(speed[i] * speed[i])[0] / 2;
        for (int j = i + 1; j < BODIES; j++) {
            vec4 d = place[i] - place[j];
            sum -= mass[i] * mass[j] / sqrt(spread_sum(d * d)[0]);
        }
    }
    return sum;
}

int main(int argc, char **argv)
{
    long steps = argc == 2 ? atol(argv[1]) : 0;

#ifdef __AVX2__
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        puts("this processor has no AVX2 or no FMA");
        return 1;
    }
#endif
    for (int i = 0; i < BODIES; i++) {
        place[i] = (vec4){i * 37 % 16 - 8, i * 23 % 16 - 8, i % 3 * 0.25, 0};
        speed[i] = (vec4){place[i][1] / -16, place[i][0] / 16, 0, 0};
        mass[i] = 1.0 / (i + 1);
    }
    for (long i = 0; i < steps; i++)
        advance();
    printf("energy %.17g\n", energy());
    return steps <= 0;
}
