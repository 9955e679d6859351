# %% [markdown]
# # 02 · Solutions
#
# One way to solve each exercise of `02_imdb_gpt2_classifier.ipynb`. Yours may look different, as long as the check is content.

# %%
from helpers.profiles import load_profile

profile = load_profile()
profile.imdb

# %% [markdown]
# **1. Count the rectangle.** Each batch costs its number of rows times its longest. The slice at the end of the list is shorter by itself.

# %%
from helpers import checks


def padded_tokens(lengths, batch_size):
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return sum(len(batch) * max(batch) for batch in batches)


assert checks.lesson_02_padded_tokens(padded_tokens)

# %% [markdown]
# The order matters, and sorting is the cheapest there is. The same lengths, mixed and sorted:

# %%
mixed = [30, 200, 45, 180, 60, 190]
print(padded_tokens(mixed, 2), padded_tokens(sorted(mixed), 2))

# %% [markdown]
# **2. The last real token.** Multiply the mask by the positions: filling becomes 0, and the largest of what is left is the last real position. The classifiers of transformers do the same, with "is not the pad token" for a mask.


# %%
def last_real_token(attention_mask):
    positions = range(attention_mask.shape[1])
    return (attention_mask * attention_mask.new_tensor(positions)).argmax(dim=1)


assert checks.lesson_02_last_real_token(last_real_token)

# %% [markdown]
# **3. Make it fit.** Try sizes from the largest that fits downwards; the first that divides the batch evenly needs the fewest small batches.


# %%
def batch_and_accumulation(batch_size, largest_that_fits):
    for size in range(min(batch_size, largest_that_fits), 0, -1):
        if batch_size % size == 0:
            return size, batch_size // size


assert checks.lesson_02_batch_and_accumulation(batch_and_accumulation)

# %% [markdown]
# Seven reviews of which three fit end as seven times one. A batch size with many divisors is the kinder choice, which is one reason why 8, 16 and 32 are so common.
