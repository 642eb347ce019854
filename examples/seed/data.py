"""The rows that the scripts of this folder train on: small, invented, the same in each of them."""

from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split

X, y = make_classification(n_samples=600, n_features=5, n_informative=4, n_redundant=1, random_state=7)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=7)
new_data = X_test[:3]
