// All layers of a transformer, for one new token of every row.  A part of kernels.c.

// x wᵀ + bias of x [rows, in] and w [out, in] as it was laid out: `multiply` of the products that the processor has
typedef void Multiply(I rows, I in, I out, const T *x, const T *w, const T *bias, T *room, T *y);

// Of one layer.  Norms are null where there are none; products are those of qkv, of what attention says, of gate and
// up, and of what the gate lets through.
typedef struct {
    const float *norm, *q_norm, *k_norm, *o_norm, *mlp_norm, *down_norm;
    const T *w[4], *bias[4];
    I rope, reach;  // which of `turns`, −1: none; how many tokens it sees
} Layer;

typedef struct { const T *root_keys, *root_values, *prompt_keys, *prompt_values; T *own_keys, *own_values; } Kept;

// x [rows, width], the residual stream, goes through them in place.
//
// kv, across, scale, shared to drawn, columns and scratch: see `attend`; turns: cos and sin [rows, HEAD / 2] of each
// rope.  said [4]: where products are left, [layers, rows, .] each, of the first `traced` layers apart and of the others
// all in the same place after them; room [rows, at least as many as enter a product], tiles: room of `multiply_by`.
void layers(I count, const Layer *layer, const Kept *kept, Multiply *multiply_by, I threads, I rows, I kv, I width,
            I hidden, I across, float epsilon, float scale, float residual, const float *const *turns, I shared, I rest,
            I limit, const I *place, const I *start, const I *drawn, I columns, float *scratch, I traced,
            T *const *said, T *room, T *tiles, float *x) {
    const I queries = kv * GROUP * HEAD, sizes[4] = {queries + 2 * kv * HEAD, width, 2 * hidden, width};
    for (I i = 0; i < count; i++) {
        const Layer *l = layer + i; const Kept *k = kept + i;
        const float *cos = l->rope < 0 ? 0 : turns[2 * l->rope], *sin = l->rope < 0 ? 0 : turns[2 * l->rope + 1];
        T *y[4];
        for (int p = 0; p < 4; p++) y[p] = said[p] + (i < traced ? i : traced) * rows * sizes[p];

        norm(rows, width, x, l->norm, epsilon, room);
        multiply_by(rows, width, sizes[0], room, l->w[0], l->bias[0], tiles, y[0]);
        attend(threads, rows, kv, y[0], l->q_norm, l->k_norm, across, epsilon, cos, sin, scale, k->root_keys,
               k->root_values, shared, k->prompt_keys, k->prompt_values, rest, place, k->own_keys, k->own_values, limit,
               start, drawn, l->reach, columns, scratch, room);
        multiply_by(rows, queries, width, room, l->w[1], l->bias[1], tiles, y[1]);
        add(rows, width, x, y[1], l->o_norm, epsilon, residual);

        norm(rows, width, x, l->mlp_norm, epsilon, room);
        multiply_by(rows, width, 2 * hidden, room, l->w[2], l->bias[2], tiles, y[2]);
        gate(rows, hidden, y[2], room);
        multiply_by(rows, hidden, width, room, l->w[3], l->bias[3], tiles, y[3]);
        add(rows, width, x, y[3], l->down_norm, epsilon, residual);
    }
}
